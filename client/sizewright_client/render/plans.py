"""The table of ranked plans: one row for a machine and layout, with the places it is sold in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from sizewright.v1 import catalog_pb2, plan_pb2
from sizewright_catalog.money import amount
from sizewright_client.render.figures import age, gib, printable
from sizewright_client.render.layout import layout_sizes
from sizewright_client.render.page import Page
from sizewright_client.render.plan_words import (
    POOLS,
    PRICE_KINDS,
    TERMS,
    VERDICTS,
    is_old,
    plan_name,
)

# "Standard_ND96isr_H100_v5" and "MI300X-192GB-OAM" and their like stay on one line.
_NAME_WIDTH, _GPUS_WIDTH = 25, 19
#: Columns of the machine and of its GPUs.
_MACHINE, _GPUS = 2, 3


def put_plans(page: Page, plans: Sequence[plan_pb2.Recommendation]) -> None:
    """Add the plans in their order; neighbours that differ in place and price alone share a row."""
    heads = ("#", "$/hour", "machine", "GPUs and layout", "needs/has GiB")
    rows = [tuple(Text(head, style="dim") for head in heads)]
    for _, alike in groupby(plans, _run_alike):
        group = list(alike)
        first = group[0]
        rows.append(
            (_ranks(group), _cost(group), _where(group), _gpus(page, first), _memory(first))
        )
    widths = _widths(page, rows)
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for index, width in enumerate(widths):
        grid.add_column(justify="right" if index < _MACHINE else "left", width=width)
    for row in rows:
        grid.add_row(
            *(wrapped(cell, width) for cell, width in zip(row, widths, strict=True)),
        )
    page.put(grid)


def wrapped(text: Text, width: int) -> Text:
    """The text in lines of a width, broken at blanks, else behind a dash or underscore."""
    return Text("\n").join(piece for line in text.split("\n") for piece in _pieces(line, width))


def _pieces(line: Text, width: int) -> Iterable[Text]:
    while cell_len(line.plain) > width:
        at = _break(line.plain, width)
        yield line[:at]
        line = line[at:]
        line = line[len(line.plain) - len(line.plain.lstrip()) :]
    yield line


def _break(words: str, width: int) -> int:
    """Where a line ends: behind its last blank, else its last dash or underscore, else anywhere."""
    head = words[:width]
    blank = words[: width + 1].rfind(" ")
    dash = max(head.rfind(mark) for mark in "-_")
    # A first word of a few letters alone on a line helps nobody.
    if blank > width // 3:
        return blank
    return dash + 1 if dash > 0 else width


def _run_alike(plan: plan_pb2.Recommendation) -> tuple[object, ...]:
    """What plans of one row have in common: all but region, zone, and the price itself."""
    owned = plan.HasField("machine")
    kind = plan.offer.instance_type
    return (
        plan.machine.name if owned else f"{kind.provider}/{kind.type}",
        plan.offer.term,
        plan.offer.price.kind,
        is_old(plan),
        plan.offer.commitment,
        plan.node_count,
        plan.layout.SerializeToString(deterministic=True),
        tuple(pool.SerializeToString(deterministic=True) for pool in plan.pools),
    )


def _ranks(group: Sequence[plan_pb2.Recommendation]) -> Text:
    first, last = group[0].rank, group[-1].rank
    return Text(str(first) if first == last else f"{first}-{last}")


def _cost(group: Sequence[plan_pb2.Recommendation]) -> Text:
    """The price, what it buys, what kind of price it is where nobody lists it, and its age."""
    plan, dearest = group[0], max(one.cost_per_hour_nanos_usd for one in group)
    text = Text(amount(plan.cost_per_hour_nanos_usd), style="bold")
    if dearest > plan.cost_per_hour_nanos_usd:
        text.append(f"\nto {amount(dearest)}", style="not bold")
    if plan.HasField("job_hours"):
        text.append(f"\n{amount(plan.cost_per_job_nanos_usd)}/job", style="not bold")
    if not plan.HasField("offer"):
        return text.append("\nowned", style="not bold")
    price = plan.offer.price
    text.append(f"\n{TERMS.get(plan.offer.term, '')}", style="not bold")
    if price.kind != catalog_pb2.PRICE_KIND_LIST:
        text.append(f"\n{PRICE_KINDS.get(price.kind, '')}", style="yellow not bold")
    old = is_old(plan)
    words = age(price.age).replace(" days", " d") + ("!" if old else "")
    return text.append(f"\n{words}", style="yellow not bold" if old else "dim not bold")


def _where(group: Sequence[plan_pb2.Recommendation]) -> Text:
    plan = group[0]
    owned = plan.HasField("machine")
    text = Text(printable(plan_name(plan.offer, plan.machine, owned)), style="bold")
    if owned:
        return text
    place = plan.offer.zone or plan.offer.region
    text.append(f"\n{printable(plan.offer.provider)}, {printable(place)}", style="not bold")
    others = list(dict.fromkeys(one.offer.zone or one.offer.region for one in group[1:]))
    if others:
        text.append(f"\nor {printable(', '.join(others))}", style="not bold")
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
        words = f"{POOLS.get(pool.pool, '')} {gib(pool.peak.best_bytes)}/{gib(pool.usable_bytes)}"
        note = "" if pool.verdict == plan_pb2.VERDICT_FITS else f"\n{verdict}"
        text.append(("\n" if text else "") + words + note, style=style)
    return text


def _widths(page: Page, rows: Sequence[tuple[Text, ...]]) -> list[int]:
    """Each column as wide as its longest line; what that is too much goes off names, then GPUs."""
    widths = [max(_longest_line(row[column]) for row in rows) for column in range(len(rows[0]))]
    excess = sum(widths) + 2 * (len(widths) - 1) - page.width
    narrowest = ((_MACHINE, _NAME_WIDTH), (_GPUS, _GPUS_WIDTH), (_GPUS, 1), (_MACHINE, 1))
    for column, least in narrowest:
        taken = min(max(excess, 0), max(widths[column] - least, 0))
        widths[column] -= taken
        excess -= taken
    return widths


def _longest_line(text: Text) -> int:
    return max(cell_len(line) for line in text.plain.split("\n"))
