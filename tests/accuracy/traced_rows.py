"""Steps as traced, a row each, and what is estimated of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from tests.accuracy.trace_cases import map_trace

from sizewright_server.estimation.columns import GpuColumns
from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.replay import replayed_reserved_bytes
from sizewright_server.estimation.workload import Layout

FIXTURES = Path(__file__).parents[1] / "fixtures"
Row: TypeAlias = dict[str, Any]
NONE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Traced:
    """A row and the estimate of its step on one GPU."""

    row: Row
    parameters: int
    columns: GpuColumns

    @property
    def best_bytes(self) -> int:
        """The allocated peak, estimated."""
        return int(self.columns.allocated_best[0])

    @property
    def peak_bytes(self) -> int:
        """The allocated peak, traced."""
        return int(self.row["allocated_peak_bytes"])

    @property
    def error(self) -> float:
        """How far the estimate is from the traced peak, relative to it."""
        return self.best_bytes / self.peak_bytes - 1


def rows_of(name: str) -> list[Row]:
    """The rows of `tests/fixtures/<name>.jsonl`."""
    text = FIXTURES.joinpath(f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def estimated(row: Row) -> Traced:
    """A row with its estimate."""
    made = prepare(map_trace(row).workload)
    return Traced(row, made.parameter_count, gpu_columns(made.group([Layout()])))


def replayed_bytes(row: Row) -> int:
    """Bytes that the allocator holds, by replaying the row's step."""
    group = prepare(map_trace(row).workload).group([Layout()])
    return replayed_reserved_bytes(group, int(gpu_columns(group).allocated_best[0]))


@cache
def measured(name: str) -> dict[str, Traced]:
    """Every row of a file with its estimate, by the row's id."""
    return {row["id"]: estimated(row) for row in rows_of(name)}


def miscounted(name: str) -> dict[str, tuple[int, int]]:
    """Rows of a file whose parameters are not those traced: both counts."""
    return {
        one: (traced.parameters, traced.row["parameters"])
        for one, traced in measured(name).items()
        if traced.parameters != traced.row["parameters"]
    }


def far(name: str, near: float, further: Mapping[str, float] = NONE) -> dict[str, float]:
    """Errors of a file's rows that are further off than `near`, or than what is known of a row."""
    return {
        one: round(traced.error, 4)
        for one, traced in measured(name).items()
        if abs(traced.error) > further.get(one, near)
    }
