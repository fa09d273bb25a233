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

    def of(self, row: int) -> list[int]:
        """Every column's entry of a row, in the order of the fields."""
        return [int(getattr(self, name)[row]) for name in self.__dataclass_fields__]

    def and_then(self, more: LayoutColumns) -> LayoutColumns:
        """These layouts, and more behind them."""
        names = self.__dataclass_fields__
        pairs = ((getattr(self, name), getattr(more, name)) for name in names)
        return LayoutColumns(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True, slots=True)
class GpuColumns:
    """Allocated and reserved bytes per GPU, and the phases they come from.

    Of a pipeline there is a column for every layout at its first position, then at the next;
    `doubts` are what each phase may hold less, and more.
    """

    phases: tuple[PhasePeak, ...]
    doubts: tuple[tuple[Column, Column], ...]
    allocated_low: Column
    allocated_best: Column
    allocated_high: Column
    reserved_best: Column
    reserved_high: Column

    def needs(self, layouts: int) -> Column:
        """Three rows for so many layouts, each the highest over the positions in a pipeline:
        allocated at least, reserved at best and at most."""
        made = np.array((self.allocated_low, self.reserved_best, self.reserved_high))
        highest: Column = made.reshape(3, -1, layouts).max(axis=1)
        return highest
