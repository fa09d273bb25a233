"""Ranked plans on a page: what to take, what it costs, why, and what happened to the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from sizewright.v1 import catalog_pb2, estimate_pb2, plan_pb2, sizing_service_pb2
from sizewright_catalog.money import dollars
from sizewright_client.render.advice import put_advice, put_pareto, put_techniques
from sizewright_client.render.estimate import pool_title, put_pool, put_subject, put_warnings
from sizewright_client.render.explain import put_explanation
from sizewright_client.render.figures import age, count, day, gib, printable, size
from sizewright_client.render.page import Page, grid_of
from sizewright_client.render.plan_words import POOLS, TERMS, VERDICTS, is_old, plan_name
from sizewright_client.render.plans import put_plans

#: Columns of a bar on a page of the usual width, which its numbers leave room for.
BAR_WIDTH, WIDE_ENOUGH = 24, 78
HOURS_OF_A_DAY = 24
#: A job that is longer is told in days.
LONG_JOB_HOURS = 100


def put_recommendations(
    page: Page,
    response: sizing_service_pb2.RecommendResponse,
    *,
    name: str = "",
    explain: bool = False,
) -> None:
    """Add a whole answer. `name` is the workload's own; `explain` adds every part's formula."""
    _put_summary(page, response, name)
    if response.recommendations:
        _put_price_doubt(page, response.recommendations[0])
        put_plans(page, response.recommendations)
        _put_best(page, response.recommendations[0], explain=explain)
        put_pareto(page, response.pareto_front, response.pareto_front_count)
    elif response.HasField("nearest_miss"):
        _put_miss(page, response)
    put_advice(page, response.advice)
    _put_rejections(page, response.rejections)
    if response.recommendations and response.HasField("nearest_miss"):
        _put_miss(page, response)
    first = response.recommendations[0].warnings if response.recommendations else ()
    put_warnings(page, _once((*response.warnings, *first)))
    _put_catalog(page, response.catalog)


def put_pool_fits(page: Page, pools: Iterable[plan_pb2.PoolFit]) -> None:
    """Add a bar per pool: how much of what is usable the peak takes."""
    grid = grid_of(("pool", "left"), ("bar", "left"), ("numbers", "left"), ("verdict", "left"))
    width = BAR_WIDTH if page.width >= WIDE_ENOUGH else BAR_WIDTH // 4
    for pool in pools:
        words, style = VERDICTS.get(pool.verdict, ("", ""))
        share = pool.peak.best_bytes / pool.usable_bytes if pool.usable_bytes else 1.0
        blank = "·" if page.glyphs.unicode else "."
        bar = page.glyphs.bar(share, width).ljust(width, blank)
        numbers = f"{gib(pool.peak.best_bytes)} of {gib(pool.usable_bytes)} GiB"
        if pool.peak.high_bytes != pool.peak.best_bytes:
            numbers += f", {gib(pool.peak.high_bytes)} at most"
        grid.add_row(
            POOLS.get(pool.pool, ""), Text(bar, style=style), numbers, Text(words, style=style)
        )
    page.put(grid, indent=2)


def _put_summary(page: Page, response: sizing_service_pb2.RecommendResponse, name: str) -> None:
    who = f"{printable(name)}: " if name else ""
    considered, fitting = response.considered_offer_count, response.fitting_offer_count
    if response.recommendations:
        timed = response.recommendations[0].HasField("job_hours")
        order = "The plans, best first:" if timed else "The cheapest plans:"
        fits = f"fits {count(fitting)} of {count(considered)} offers"
        if not fitting and response.recommendations[0].techniques:
            fits = f"fits no offer as it stands, and some of {count(considered)} with changes"
        words = f"{who}{fits}. {order}"
        page.say(words, style="bold")
    else:
        page.say(f"{who}nothing fits; {count(considered)} offers looked at.", style="bold red")


def _put_price_doubt(page: Page, first: plan_pb2.Recommendation) -> None:
    """Say before the ranking what it stands on, where that is an old or a worked-out price."""
    price, term = first.offer.price, TERMS.get(first.offer.term, "")
    article = "an" if term.startswith("o") else "a"
    doubts = []
    if is_old(first):
        doubts.append(
            f"Number 1 ranks by {article} {term} price of {day(price.effective_time)}, "
            f"{age(price.age)}: look it up before you count on it. "
            "--max-price-age 180d ranks newer prices alone."
        )
    if price.kind == catalog_pb2.PRICE_KIND_ESTIMATE:
        doubts.append(
            "Number 1's price is an estimate, not what its provider lists. "
            "list_prices_only in the constraints leaves such prices out."
        )
    if doubts:
        page.points(doubts, style="bold yellow")


def _put_best(page: Page, plan: plan_pb2.Recommendation, *, explain: bool) -> None:
    owned = plan.HasField("machine")
    name = plan_name(plan.offer, plan.machine, owned)
    page.heading(f"Number 1, {printable(name)}")
    put_pool_fits(page, plan.pools)
    page.points([*plan.reasons, *_job_words(plan)])
    put_techniques(page, plan.techniques)
    if not plan.HasField("estimate"):
        return
    page.put("")
    put_subject(page, plan.estimate)
    for pool in plan.estimate.pools:
        put_pool(page, pool)
    put_warnings(page, plan.estimate.warnings)
    if explain:
        for pool in plan.estimate.pools:
            put_explanation(page, pool, pool_title(pool))


def _job_words(plan: plan_pb2.Recommendation) -> list[str]:
    if not plan.HasField("job_hours"):
        return []
    hours = plan.job_hours
    unit, each = ("days", HOURS_OF_A_DAY) if hours.best_hours > LONG_JOB_HOURS else ("hours", 1)
    low, best, high = (
        f"{one / each:,.3g}" if one / each < LONG_JOB_HOURS else f"{one / each:,.0f}"
        for one in (hours.low_hours, hours.best_hours, hours.high_hours)
    )
    cost = dollars(plan.cost_per_job_nanos_usd)
    words = f"The whole job takes {best} {unit}, from {low} to {high}"
    return [f"{words}, and costs {cost} by the best estimate."]


def _put_miss(page: Page, response: sizing_service_pb2.RecommendResponse) -> None:
    miss = response.nearest_miss
    name = plan_name(miss.offer, miss.machine, miss.HasField("machine"))
    page.heading(f"Nearest miss: {printable(name)}, short of {size(miss.missing_bytes)}")
    put_pool_fits(page, miss.pools)
    more = "" if response.advice else " --advise tells what would bring it within reach."
    page.say(miss.message + more, indent=2)


def _put_rejections(page: Page, rejections: Sequence[plan_pb2.Rejection]) -> None:
    if not rejections:
        return
    page.heading("Why the others are not here")
    grid = grid_of(("count", "right"), ("constraint", "left"), ("sentence", "left"))
    for rejection in rejections:
        grid.add_row(
            count(rejection.offer_count),
            printable(rejection.constraint),
            printable(_without_count(rejection)),
        )
    page.put(grid, indent=2)


def _without_count(rejection: plan_pb2.Rejection) -> str:
    """The sentence without the count, which stands before it."""
    return rejection.message.removeprefix(f"{count(rejection.offer_count)} offers ")


def _once(warnings: Iterable[estimate_pb2.Warning]) -> list[estimate_pb2.Warning]:
    return list({(warning.code, warning.message): warning for warning in warnings}.values())


def _put_catalog(page: Page, catalog: catalog_pb2.CatalogVersion) -> None:
    if not catalog.version:
        return
    words = f"catalog {catalog.version[:12]}"
    if catalog.HasField("build_time"):
        words += f", built {day(catalog.build_time)}"
    if catalog.HasField("oldest_price_time"):
        words += f", oldest price here {day(catalog.oldest_price_time)}"
    page.put("")
    page.say(words, style="dim")
