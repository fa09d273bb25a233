"""The words of serving parts: formula, source and confidence by name, from `data/parts.json`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.memory import ByteRange, Part


@cache
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = data_of("sizewright_server.estimation.serving", "parts")
    return table


def part(
    name: str,
    size: ByteRange,
    numbers: str = "",
    parts: tuple[Part, ...] = (),
    words: str = "",
) -> Part:
    """A named part with its words, those of another name where they differ by engine."""
    text = _table()[words or name]
    shown = numbers or f"{size.best_bytes:,} B"
    return Part(name, size, text["formula"], shown, text["source"], text["confidence"], parts)


def exact(name: str, size: int, numbers: str = "") -> Part:
    """A part without doubt."""
    return part(name, ByteRange(size, size, size), numbers)


def remainder(whole: ByteRange, held: ByteRange) -> ByteRange:
    """What is left of `whole` beside `held`: exact in the best value, in order around it."""
    low, best, high = (
        max(0, getattr(whole, bound) - getattr(held, bound))
        for bound in ("low_bytes", "best_bytes", "high_bytes")
    )
    return ByteRange(min(low, best), best, max(best, high))


def total(parts: Iterable[Part]) -> ByteRange:
    """The sum of parts."""
    made = ByteRange(0, 0, 0)
    for each in parts:
        made = made + each.size
    return made
