"""Every part with its formula, the numbers put in, its source, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable

from sizewright.v1 import estimate_pb2
from sizewright_client.render.figures import interval, size
from sizewright_client.render.page import Page

_SURENESS = {
    estimate_pb2.CONFIDENCE_HIGH: "sure",
    estimate_pb2.CONFIDENCE_MEDIUM: "to about 20 %",
    estimate_pb2.CONFIDENCE_LOW: "order of magnitude",
}


def put_explanation(page: Page, pool: estimate_pb2.PoolEstimate, title: str) -> None:
    """Add the steps to the peak, then each part once, under the phase in which it is largest."""
    if pool.steps:
        _put_steps(page, pool, title)
    for phase in pool.phases:
        parts = [part for part in phase.parts if _largest_phase(pool, part.name) is phase]
        if parts:
            page.heading(f"{title}, {phase.name}: how each part comes about")
            _put_parts(page, parts, 2)


def _put_steps(page: Page, pool: estimate_pb2.PoolEstimate, title: str) -> None:
    page.heading(f"{title}, step by step to the peak in {pool.peak_phase}")
    for number, step in enumerate(pool.steps, 1):
        page.say(f"{number}. {step.name}: {interval(step.size)}", style="bold", indent=2)
        page.say(f"{step.question} Here: {', '.join(step.parts)}.", indent=5)
    total = sum(step.size.best_bytes for step in pool.steps)
    words = f"{len(pool.steps) + 1}. the sum: {size(total)}"
    page.say(words, style="bold", indent=2)
    neighbours = "What else is on the node is taken off its usable memory, not counted here."
    page.say(neighbours, style="dim", indent=5)


def _largest_phase(pool: estimate_pb2.PoolEstimate, name: str) -> estimate_pb2.Phase:
    """The phase where a part is largest; of several the peak's own, else the first."""
    sizes = [
        (part.size.best_bytes, phase.name == pool.peak_phase, -index, phase)
        for index, phase in enumerate(pool.phases)
        for part in phase.parts
        if part.name == name
    ]
    return max(sizes, key=lambda entry: entry[:3])[3]


def _put_parts(page: Page, parts: Iterable[estimate_pb2.Part], indent: int) -> None:
    for part in parts:
        sureness = _SURENESS.get(part.confidence, "")
        note = f", {sureness}" if sureness else ""
        page.say(f"{part.name}: {interval(part.size)}{note}", style="bold", indent=indent)
        if part.formula:
            page.say(f"= {part.formula}", indent=indent + 2)
        if part.numbers:
            page.say(f"= {part.numbers}", indent=indent + 2)
        if part.source:
            page.say(f"from {part.source}", style="dim", indent=indent + 2)
        _put_parts(page, part.parts, indent + 2)
