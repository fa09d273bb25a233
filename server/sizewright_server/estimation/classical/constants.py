"""Constants that are measured, not computed: entries of `data/*.json`, checked when they are read.

An entry is {value, low, high, unit, source, applies_to}; units are MiB, bytes and share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.memory import ByteRange, Part

MIB = 2**20
_UNITS = {"MiB": MIB, "bytes": 1, "share": 1}


@dataclass(frozen=True, slots=True)
class Constant:
    """One measured figure with its bounds."""

    value: float
    low: float
    high: float
    unit: str
    source: str
    applies_to: str

    def size(self, times: float = 1) -> ByteRange:
        """`times` the figure in bytes."""
        scale = _UNITS[self.unit] * times
        return ByteRange(int(self.low * scale), int(self.value * scale), int(self.high * scale))

    def part(self, name: str, formula: str, times: float = 1) -> Part:
        """A part of `times` the figure."""
        shown = f"{self.value:g} {self.unit}"
        numbers = shown if times == 1 else f"{times:,g} x {shown}"
        return Part(name, self.size(times), formula, numbers, self.source, "medium")


@cache
def _table(name: str) -> dict[str, Constant]:
    made = {}
    for key, entry in data_of("sizewright_server.estimation.classical", name).items():
        if key.startswith("_"):
            continue
        constant = Constant(**entry)
        if constant.unit not in _UNITS:
            raise ValueError(f"{name}.json: {key} has the unknown unit {constant.unit!r}")
        if not 0 <= constant.low <= constant.value <= constant.high:
            raise ValueError(f"{name}.json: {key} is not low <= value <= high")
        made[key] = constant
    return made


def constant(table: str, key: str) -> Constant:
    """An entry. Raises KeyError where there is none."""
    return _table(table)[key]


def keys(table: str) -> tuple[str, ...]:
    """The names of a table's entries."""
    return tuple(_table(table))
