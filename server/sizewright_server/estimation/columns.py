"""What is known of many layouts at once: int64 columns, one entry per layout, in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.timeline import PhasePeak


@dataclass(frozen=True, slots=True)
class LayoutColumns:
    """What the planner needs of many layouts: int64 columns, one entry per layout, in bytes.

    GPU figures are per GPU and without the device's own overhead; the host needs of a node are
    `host_node + ranks_per_node * host_rank`.
    """

    gpu_reserved_low_bytes: Column
    gpu_reserved_best_bytes: Column
    gpu_reserved_high_bytes: Column
    host_rank_low_bytes: Column
    host_rank_best_bytes: Column
    host_rank_high_bytes: Column
    host_node_low_bytes: Column
    host_node_best_bytes: Column
    host_node_high_bytes: Column
    communicator_count: Column
    largest_group: Column

    def take(self, rows: Sequence[int]) -> LayoutColumns:
        """The columns with an entry per given row."""
        return LayoutColumns(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def and_then(self, more: LayoutColumns) -> LayoutColumns:
        """These layouts, and more behind them."""
        names = self.__dataclass_fields__
        pairs = ((getattr(self, name), getattr(more, name)) for name in names)
        return LayoutColumns(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True, slots=True)
class GpuColumns:
    """Allocated and reserved bytes per GPU, and the phases they come from."""

    phases: tuple[PhasePeak, ...]
    allocated_low: Column
    allocated_best: Column
    allocated_high: Column
    reserved_best: Column
    reserved_high: Column
    #: Stages of a pipeline, by their number, where there is one.
    stages: tuple[tuple[Column, GpuColumns], ...] = ()


def highest(columns: Sequence[GpuColumns], shown: int, numbers: Sequence[Column]) -> GpuColumns:
    """The highest of each reading over pipeline stages; the phases are those of the shown one."""

    def top(name: str) -> Column:
        found: Column = np.max([getattr(one, name) for one in columns], axis=0)
        return found

    return GpuColumns(
        phases=columns[shown].phases,
        allocated_low=top("allocated_low"),
        allocated_best=top("allocated_best"),
        allocated_high=top("allocated_high"),
        reserved_best=top("reserved_best"),
        reserved_high=top("reserved_high"),
        stages=tuple(zip(numbers, columns, strict=True)),
    )
