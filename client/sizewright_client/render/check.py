"""Whether a workload fits one machine, on a page."""

from __future__ import annotations

from sizewright.v1 import sizing_service_pb2
from sizewright_client.render.advice import put_advice, put_limits
from sizewright_client.render.estimate import put_estimate, put_warnings
from sizewright_client.render.page import Page
from sizewright_client.render.plan_words import VERDICTS
from sizewright_client.render.recommend import put_pool_fits


def put_check(
    page: Page,
    response: sizing_service_pb2.CheckFitResponse,
    *,
    target: str,
    node_count: int,
    explain: bool = False,
) -> None:
    """Add the verdict on `target`, what binds, and the estimate behind it."""
    verdict, style = VERDICTS.get(response.verdict, ("has no verdict", ""))
    verdict = "fits tightly" if verdict == "tight" else verdict
    nodes = f"{node_count} of " if node_count > 1 else ""
    page.say(f"{verdict} on {nodes}{target}", style=f"bold {style}".strip())
    put_pool_fits(page, response.pools)
    page.points(list(response.reasons))
    put_advice(page, response.advice)
    put_limits(page, response.limits)
    put_warnings(page, response.warnings)
    if response.HasField("estimate"):
        page.put("")
        put_estimate(page, response.estimate, explain=explain)
