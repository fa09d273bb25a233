"""Figures as they are reported: a value, what it is allowed to be, and what it stands beside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Figure:
    """One measured value. `budget` None: reported, not judged.

    `beside` are floors, peers and spreads of the same run; `basis` says how it was measured.
    """

    name: str
    value: float
    unit: str
    budget: float | None = None
    sense: Literal["at-most", "at-least"] = "at-most"
    beside: dict[str, float] = field(default_factory=dict)
    basis: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the budget is kept; None without one."""
        if self.budget is None:
            return None
        return self.value <= self.budget if self.sense == "at-most" else self.value >= self.budget

    def as_json(self) -> dict[str, Any]:
        """The figure with its judgement."""
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call: wall clock, and the processor time of this thread."""

    median: float
    p90: float
    least: float
    cpu: float

    def beside(self) -> dict[str, float]:
        """The spread, for a figure whose value is the median."""
        return {"p90_ms": self.p90, "least_ms": self.least, "cpu_ms": self.cpu}


def timed(calls: Iterable[Callable[[], object]]) -> Timing:
    """Times calls one after the other; each is made once, so that none is helped by itself."""
    wall, cpu = [], []
    for call in calls:
        cpu_start, start = time.thread_time(), time.perf_counter()
        call()
        wall.append(time.perf_counter() - start)
        cpu.append(time.thread_time() - cpu_start)
    milliseconds = 1e3 * np.array(wall)
    return Timing(
        median=float(np.median(milliseconds)),
        p90=float(np.quantile(milliseconds, 0.9)),
        least=float(milliseconds.min()),
        cpu=float(1e3 * np.median(cpu)),
    )


def table(figures: Sequence[Figure]) -> str:
    """The figures as a page of text, the missed budgets marked."""
    lines = []
    for figure in figures:
        sign = "<=" if figure.sense == "at-most" else ">="
        budget = "" if figure.budget is None else f"{sign} {figure.budget:g}"
        judged = {True: "met", False: "NOT MET", None: ""}[figure.met]
        beside = ", ".join(f"{name} {value:.4g}" for name, value in figure.beside.items())
        value = f"{figure.value:.4g} {figure.unit}"
        lines.append(f"{figure.name:<52} {value:>14} {budget:>10}  {judged:<8}{beside}".rstrip())
    return "\n".join(lines)
