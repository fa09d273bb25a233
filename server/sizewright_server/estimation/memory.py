"""The answer: a tree of named parts over phases and pools, every number with its doubt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from sizewright_server.estimation.workload import Layout

if TYPE_CHECKING:
    from sizewright_server.estimation.serving.view import ServingView

Confidence: TypeAlias = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes as low, best and high: the truth lies outside at most once in fifty on each side."""

    low_bytes: int
    best_bytes: int
    high_bytes: int

    def __add__(self, other: ByteRange) -> ByteRange:
        return ByteRange(
            self.low_bytes + other.low_bytes,
            self.best_bytes + other.best_bytes,
            self.high_bytes + other.high_bytes,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A named number of bytes, the formula in words, and the formula with its numbers put in."""

    name: str
    size: ByteRange
    formula: str
    numbers: str
    source: str
    confidence: Confidence
    parts: tuple[Part, ...] = ()


def total_of(parts: Iterable[Part]) -> ByteRange:
    """The sum of some parts."""
    low = best = high = 0
    for part in parts:
        size = part.size
        low, best, high = low + size.low_bytes, best + size.best_bytes, high + size.high_bytes
    return ByteRange(low, best, high)


@dataclass(frozen=True, slots=True)
class Phase:
    """A moment of the run; its total is the sum of its live parts."""

    name: str
    total: ByteRange
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class GpuReadings:
    """The three numbers people quote for one GPU."""

    allocated: ByteRange
    reserved: ByteRange
    device: ByteRange


@dataclass(frozen=True, slots=True)
class StageReadings:
    """One stage of a pipeline, counted from 0: allocated and reserved bytes of its ranks."""

    stage: int
    allocated: ByteRange
    reserved: ByteRange


@dataclass(frozen=True, slots=True)
class PoolEstimate:
    """One pool over the run. `peak` decides the fit: the device reading for a GPU.

    `stages` are a pipeline's stages that can be the fullest: the first, the second and the last.
    `peak_reason` says in a sentence why the peak is in its phase.
    """

    pool: Literal["gpu", "host"]
    scope: str
    phases: tuple[Phase, ...]
    peak_phase: str
    peak: ByteRange
    gpu: GpuReadings | None = None
    stages: tuple[StageReadings, ...] = ()
    peak_reason: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the asker should know: a stable code and one sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class MemoryEstimate:
    """The memory of one workload under one layout, on one kind of node.

    Equal to itself alone: comparing whole trees costs more than making one.
    """

    pools: tuple[PoolEstimate, ...]
    layout: Layout
    ranks_per_node: int
    parameter_count: int
    trainable_parameter_count: int
    architecture: str
    notices: tuple[Notice, ...] = ()
    #: An engine's own view of its GPU, for serving.
    serving: ServingView | None = None

    def pool(self, name: Literal["gpu", "host"]) -> PoolEstimate:
        """The pool of that name. Raises KeyError when the workload does not use it."""
        for pool in self.pools:
            if pool.pool == name:
                return pool
        raise KeyError(name)
