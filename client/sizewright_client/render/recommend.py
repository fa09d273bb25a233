"""Ranked plans on a page: what to take, what it costs, why, and what happened to the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from sizewright.v1 import catalog_pb2, estimate_pb2, plan_pb2, sizing_service_pb2
from sizewright_catalog.money import amount, dollars
from sizewright_client.render.advice import put_advice, put_pareto, put_techniques
from sizewright_client.render.estimate import pool_title, put_pool, put_subject, put_warnings
from sizewright_client.render.explain import put_explanation
from sizewright_client.render.figures import age, count, day, gib, printable, size
from sizewright_client.render.layout import layout_sizes
from sizewright_client.render.page import Page, grid_of

_TERMS = {
    catalog_pb2.PURCHASE_TERM_ON_DEMAND: "on-demand",
    catalog_pb2.PURCHASE_TERM_SPOT: "spot",
    catalog_pb2.PURCHASE_TERM_COMMITTED: "committed",
    catalog_pb2.PURCHASE_TERM_OWNED: "owned",
}
_PRICE_KINDS = {
    catalog_pb2.PRICE_KIND_ESTIMATE: "estimate",
    catalog_pb2.PRICE_KIND_COMPOSED: "composed",
    catalog_pb2.PRICE_KIND_OVERRIDE: "override",
}
VERDICTS = {
    plan_pb2.VERDICT_FITS: ("fits", "green"),
    plan_pb2.VERDICT_TIGHT: ("tight", "yellow"),
    plan_pb2.VERDICT_NO: ("does not fit", "red"),
}
# "Standard_ND96isr_H100_v5" and "MI300X-192GB-OAM" and their like stay on one line.
_NAME_WIDTH, _GPUS_WIDTH = 25, 19
_POOLS = {estimate_pb2.POOL_GPU: "GPU", estimate_pb2.POOL_HOST: "host"}


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
        _put_plans(page, response.recommendations)
        _put_best(page, response.recommendations[0], explain=explain)
        put_pareto(page, response.pareto_front)
    elif response.HasField("nearest_miss"):
        _put_miss(page, response.nearest_miss)
    put_advice(page, response.advice)
    _put_rejections(page, response.rejections)
    if response.recommendations and response.HasField("nearest_miss"):
        _put_miss(page, response.nearest_miss)
    first = response.recommendations[0].warnings if response.recommendations else ()
    put_warnings(page, _once((*response.warnings, *first)))
    _put_catalog(page, response.catalog)


def plan_name(offer: catalog_pb2.Offer, machine: catalog_pb2.Machine, owned: bool) -> str:
    """The machine of a plan: the provider's name of the type, or the owned machine's own."""
    return machine.name.removeprefix("machines/") if owned else offer.instance_type.type


def put_pool_fits(page: Page, pools: Iterable[plan_pb2.PoolFit]) -> None:
    """Add a bar per pool: how much of what is usable the peak takes."""
    grid = grid_of(("pool", "left"), ("bar", "left"), ("numbers", "left"), ("verdict", "left"))
    for pool in pools:
        words, style = VERDICTS.get(pool.verdict, ("", ""))
        share = pool.peak.best_bytes / pool.usable_bytes if pool.usable_bytes else 1.0
        blank = "·" if page.glyphs.unicode else "."
        bar = page.glyphs.bar(share, 24).ljust(24, blank)
        numbers = f"{gib(pool.peak.best_bytes)} of {gib(pool.usable_bytes)} GiB"
        if pool.peak.high_bytes != pool.peak.best_bytes:
            numbers += f", {gib(pool.peak.high_bytes)} at most"
        grid.add_row(
            _POOLS.get(pool.pool, ""), Text(bar, style=style), numbers, Text(words, style=style)
        )
    page.put(grid, indent=2)


def _put_summary(page: Page, response: sizing_service_pb2.RecommendResponse, name: str) -> None:
    who = f"{printable(name)}: " if name else ""
    considered, fitting = response.considered_offer_count, response.fitting_offer_count
    if response.recommendations:
        timed = response.recommendations[0].HasField("job_hours")
        order = "The plans, best first:" if timed else "The cheapest plans:"
        words = f"{who}fits {count(fitting)} of {count(considered)} offers. {order}"
        page.say(words, style="bold")
    else:
        page.say(f"{who}nothing fits; {count(considered)} offers looked at.", style="bold red")


def _put_price_doubt(page: Page, first: plan_pb2.Recommendation) -> None:
    """Say before the ranking what it stands on, where that is an old or a worked-out price."""
    price, term = first.offer.price, _TERMS.get(first.offer.term, "")
    article = "an" if term.startswith("o") else "a"
    doubts = []
    if _is_old(first):
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


def _is_old(plan: plan_pb2.Recommendation) -> bool:
    """Whether the server warns of the price's age."""
    return any(warning.code == "price-old" for warning in plan.warnings)


def _put_plans(page: Page, plans: Sequence[plan_pb2.Recommendation]) -> None:
    heads = ("#", "$/hour", "machine", "GPUs and layout", "needs/has GiB")
    rows = [tuple(Text(head, style="dim") for head in heads)]
    rows += [
        (Text(str(plan.rank)), _cost(plan), _where(plan), _gpus(page, plan), _memory(plan))
        for plan in plans
    ]
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for index, width in enumerate(_widths(page, rows)):
        grid.add_column(justify="right" if index < 2 else "left", width=width, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    page.put(grid)


def _widths(page: Page, rows: Sequence[tuple[Text, ...]]) -> list[int]:
    """Each column as wide as its longest line; what that is too much goes off GPUs, then names."""
    widths = [max(_longest_line(row[column]) for row in rows) for column in range(len(rows[0]))]
    excess = sum(widths) + 2 * (len(widths) - 1) - page.width
    for column, narrowest in ((3, _GPUS_WIDTH), (2, _NAME_WIDTH), (3, 1), (2, 1)):
        taken = min(max(excess, 0), max(widths[column] - narrowest, 0))
        widths[column] -= taken
        excess -= taken
    return widths


def _longest_line(text: Text) -> int:
    return max(cell_len(line) for line in text.plain.split("\n"))


def _cost(plan: plan_pb2.Recommendation) -> Text:
    """The price, what it buys, what kind of price it is where nobody lists it, and its age."""
    text = Text(amount(plan.cost_per_hour_nanos_usd), style="bold")
    if not plan.HasField("offer"):
        return text.append("\nowned", style="not bold")
    price = plan.offer.price
    text.append(f"\n{_TERMS.get(plan.offer.term, '')}", style="not bold")
    if price.kind != catalog_pb2.PRICE_KIND_LIST:
        text.append(f"\n{_PRICE_KINDS.get(price.kind, '')}", style="yellow not bold")
    old = _is_old(plan)
    words = age(price.age).replace(" days", " d") + ("!" if old else "")
    return text.append(f"\n{words}", style="yellow not bold" if old else "dim not bold")


def _where(plan: plan_pb2.Recommendation) -> Text:
    owned = plan.HasField("machine")
    text = Text(printable(plan_name(plan.offer, plan.machine, owned)), style="bold")
    if not owned:
        place = plan.offer.zone or plan.offer.region
        text.append(f"\n{printable(plan.offer.provider)}, {printable(place)}", style="not bold")
        if plan.offer.commitment:
            text.append(f"\n{printable(plan.offer.commitment)}", style="not bold")
    return text


def _gpus(page: Page, plan: plan_pb2.Recommendation) -> Text:
    source = plan.machine if plan.HasField("machine") else plan.offer.instance_type
    times = page.glyphs.times
    nodes = f"{plan.node_count} {times} " if plan.node_count > 1 else ""
    if source.HasField("accelerators"):
        devices = f"{source.accelerators.count} {times} {source.accelerators.device}"
    else:
        devices = f"{source.vcpus} vCPUs, no GPU"
    text = Text(printable(nodes + devices))
    sizes = layout_sizes(plan.layout)
    if sizes:
        text.append(f"\n{printable(sizes)}", style="dim")
    return text


def _memory(plan: plan_pb2.Recommendation) -> Text:
    text = Text()
    for pool in plan.pools:
        verdict, style = VERDICTS.get(pool.verdict, ("", ""))
        words = f"{_POOLS.get(pool.pool, '')} {gib(pool.peak.best_bytes)}/{gib(pool.usable_bytes)}"
        note = "" if pool.verdict == plan_pb2.VERDICT_FITS else f"\n{verdict}"
        text.append(("\n" if text else "") + words + note, style=style)
    return text


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
    cost = dollars(plan.cost_per_job_nanos_usd)
    return [
        f"The whole job takes {hours.best_hours:,.1f} hours, from {hours.low_hours:,.1f} to "
        f"{hours.high_hours:,.1f}, and costs {cost} by the best estimate."
    ]


def _put_miss(page: Page, miss: plan_pb2.NearestMiss) -> None:
    name = plan_name(miss.offer, miss.machine, miss.HasField("machine"))
    page.heading(f"Nearest miss: {printable(name)}, short of {size(miss.missing_bytes)}")
    put_pool_fits(page, miss.pools)
    page.say(miss.message, indent=2)


def _put_rejections(page: Page, rejections: Sequence[plan_pb2.Rejection]) -> None:
    if not rejections:
        return
    page.heading("Why the others are not here")
    grid = grid_of(("count", "right"), ("constraint", "left"), ("sentence", "left"))
    for rejection in rejections:
        grid.add_row(
            count(rejection.offer_count),
            printable(rejection.constraint),
            printable(rejection.message),
        )
    page.put(grid, indent=2)


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
