"""What would change the answer, on a page: techniques, trade-offs, and what still fits."""

from __future__ import annotations

from collections.abc import Sequence

from sizewright.v1 import plan_pb2
from sizewright_catalog.money import amount
from sizewright_client.render.figures import count, printable, size
from sizewright_client.render.page import Page, grid_of
from sizewright_client.render.plan_words import TERMS

#: The least that is worth a word.
LEAST_BYTES = 2**26
#: The least share of memory that is worth paying more for.
WORTH_PAYING_FOR = 0.01


def put_techniques(page: Page, techniques: Sequence[plan_pb2.Technique]) -> None:
    """Add what a plan changes in the request, and what each change costs."""
    if not techniques:
        return
    page.heading("It changes the request")
    page.points([f"{_changes(one)}. Cost: {one.cost}." for one in techniques])


def put_pareto(page: Page, plans: Sequence[plan_pb2.Recommendation], whole: int) -> None:
    """Add the front of cost, free memory and nodes, where there is more than one point.

    `whole` is how many points the front has; where that is more than `plans`, the page says so.
    """
    if len(plans) < 2:
        return
    page.heading("Pay more for more room: none of these is beaten in cost, room and nodes")
    grid = grid_of(("cost", "right"), ("room", "right"), ("machine", "left"), ("name", "left"))
    for plan in _apart(plans):
        grid.add_row(
            amount(plan.cost_per_hour_nanos_usd),
            f"{100 * plan.free_share:.0f} % free",
            f"{plan.node_count} {page.glyphs.times}",
            printable(_machine(plan)),
        )
    page.put(grid, indent=2)
    if whole > len(plans):
        words = f"The whole front has {count(whole)} points; these are spread along it."
        page.say(words, style="dim", indent=2)


def put_advice(page: Page, advice: Sequence[plan_pb2.Advice]) -> None:
    """Add what would make the answer another one."""
    if not advice:
        return
    freeing = [one for one in advice if _only_frees(one)]
    better = [one for one in advice if not _only_frees(one)]
    if better:
        page.heading("What would change the answer")
        page.points([_advised(one) for one in better])
    if freeing:
        page.heading("What would free memory, at the same price")
        page.points([_advised(one) for one in freeing])


def _only_frees(one: plan_pb2.Advice) -> bool:
    """Whether a piece of advice leads to no other plan."""
    return not one.HasField("recommendation") and not one.verdict


def put_limits(page: Page, limits: Sequence[plan_pb2.FitLimit]) -> None:
    """Add the largest values that still fit."""
    if not limits:
        return
    page.heading("What still fits, all else as stated")
    grid = grid_of(("field", "left"), ("largest", "right"), ("stated", "left"))
    for limit in limits:
        most = "at least " if limit.at_least else ""
        grid.add_row(
            printable(limit.field.removeprefix("workload.")),
            f"{most}{count(limit.largest)}" if limit.largest else "not even 1",
            f"(stated: {count(limit.stated)})",
        )
    page.put(grid, indent=2)


def _advised(one: plan_pb2.Advice) -> str:
    saved = []
    for words, size_bytes in (("a GPU", one.gpu_bytes_saved), ("the host", one.host_bytes_saved)):
        if abs(size_bytes) >= LEAST_BYTES:
            verb = "less" if size_bytes > 0 else "more"
            saved.append(f"{size(abs(size_bytes))} {verb} on {words}")
    costs = "; ".join(technique.cost for technique in one.techniques)
    if len(one.techniques) > 1:
        costs = "; ".join(f"{technique.title}: {technique.cost}" for technique in one.techniques)
    results = any(technique.changes_results for technique in one.techniques)
    lossy = " Results may differ." if results else ""
    room = f" It takes {' and '.join(saved)}." if saved else ""
    details = "".join(f" {sentence}" for sentence in one.details)
    return f"{one.message}{room}{details} Cost: {costs}.{lossy}"


def _changes(technique: plan_pb2.Technique) -> str:
    changes = ", ".join(
        f"{change.field.removeprefix('workload.')} {change.before} to {change.after}"
        for change in technique.changes
    )
    return f"{technique.title or technique.name} ({changes})"


def _apart(plans: Sequence[plan_pb2.Recommendation]) -> list[plan_pb2.Recommendation]:
    """The plans that give at least a hundredth more room than those shown with as few nodes."""
    shown: list[plan_pb2.Recommendation] = []
    for plan in plans:
        rivals = [one.free_share for one in shown if one.node_count <= plan.node_count]
        if not rivals or plan.free_share - max(rivals) >= WORTH_PAYING_FOR:
            shown.append(plan)
    return shown


def _machine(plan: plan_pb2.Recommendation) -> str:
    if plan.HasField("machine"):
        return plan.machine.name.removeprefix("machines/")
    offer = plan.offer
    kind = f"{offer.provider} {offer.instance_type.type}"
    return f"{kind}, {offer.region}, {TERMS.get(offer.term, '')}"
