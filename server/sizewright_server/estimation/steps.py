"""A host's peak in the steps in which people think of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.memory import ByteRange, PoolEstimate

#: The step of parts that no other step names.
REST = "intermediates"


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it looks at, and what is held for it at the peak."""

    name: str
    size: ByteRange
    question: str
    parts: tuple[str, ...]


@cache
def _table() -> dict[str, tuple[str, frozenset[str]]]:
    table = data_of("sizewright_server.estimation", "steps")
    return {
        name: (entry["question"], frozenset(entry["parts"]))
        for name, entry in table.items()
        if not name.startswith("_")
    }


def steps_of(pool: PoolEstimate) -> tuple[Step, ...]:
    """The steps of the peak phase, in order; every part is in exactly one."""
    peak = next(phase for phase in pool.phases if phase.name == pool.peak_phase)
    sizes: dict[str, ByteRange] = {}
    names: dict[str, list[str]] = {}
    for part in peak.parts:
        step = _step_of(part.name)
        sizes[step] = sizes.get(step, ByteRange(0, 0, 0)) + part.size
        names.setdefault(step, []).append(part.name)
    return tuple(
        Step(name, sizes[name], question, tuple(names[name]))
        for name, (question, _) in _table().items()
        if name in sizes
    )


def _step_of(part: str) -> str:
    for name, (_, parts) in _table().items():
        if part in parts:
            return name
    return "preprocessing" if part.startswith("output-") else REST
