"""The model states of a group of layouts: weights, gradients, optimizer, whole or in shards.

`stage` says from which ZeRO stage on a state is split (`parallel.ParallelColumns.ways`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.architecture import Architecture, Role, Sizes
from sizewright_server.estimation.dims import Dims
from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.optimizers import (
    OptimizerKind,
    TensorTable,
    optimizers,
    state_bytes,
)
from sizewright_server.estimation.parallel import ParallelColumns
from sizewright_server.estimation.profile import Column, buffer_bytes, elements, round_up
from sizewright_server.estimation.segments import Measure, requested, unfilled
from sizewright_server.estimation.states import Widths
from sizewright_server.estimation.tensor_tables import (
    chosen,
    distinct_matrices,
    expert_rows,
    tensor_table,
)
from sizewright_server.estimation.workload import Optimizer


class ModelStates:
    """Bytes of parameter-shaped tensors, per segment and in all; computed once per width."""

    def __init__(
        self,
        architecture: Architecture,
        segments: Sequence[Segment],
        counts: Sequence[Column],
        dims: Dims,
        layouts: ParallelColumns,
        widths: Widths,
    ) -> None:
        self.layouts, self.widths = layouts, widths
        self.segments, self.counts = tuple(segments), tuple(counts)
        count = len(layouts.dp)
        self._nothing: Column = np.zeros_like(layouts.dp)
        self._nothing.setflags(write=False)
        tables: dict[tuple[int, Sizes], TensorTable] = {}
        for segment in segments:
            key = (id(segment.program), segment.sizes)
            if key not in tables:
                tables[key] = tensor_table(segment, dims.of(segment.sizes), count)
        self._tensors = [tables[id(s.program), s.sizes] for s in segments]
        self._trained = [segment.program.trained for segment in segments]
        self._experts = [expert_rows(segment) for segment in segments]
        self._has_experts = any(rows.any() for rows in self._experts)
        head = architecture.head
        tied = head.shares_table
        table = elements(("V", "E"), dims.of(segments[0].sizes))
        # The stages at both ends of a pipeline each have the table.
        self._tied = np.where((layouts.pp == 1) & tied, table, 0)
        trains_table = any(p.trained for p in segments[0].program.parameters[:1])
        self._tied_trained = self._tied if trains_table else np.zeros_like(table)
        self._buffers = [buffer_bytes(s.program, dims.of(s.sizes)) for s in segments]
        self._made: dict[tuple[int, int], list[Column]] = {}

    def here(self, index: int) -> Column:
        """1 where the pipeline stage has the segment, else 0."""
        return np.minimum(self.counts[index], 1)

    def _ways(self, number: int, rows: NDArray[Any], stage: int) -> Column:
        """Over how many ranks a segment's tensors are split: a row each where they differ."""
        if not self._has_experts:
            return self.layouts.ways(stage)
        experts = self._experts[number][rows]
        own, others = self.layouts.ways(stage, expert=True), self.layouts.ways(stage)
        return np.where(experts[:, None], own, others)

    # -- what trains ----------------------------------------------------------------------------

    def per_segment(self, itemsize: int, stage: int = 0) -> list[Column]:
        """Bytes of the trained tensors of one instance of each segment; tied ones are the
        embedding's."""
        key = (itemsize, stage)
        if key not in self._made:
            ways = self.layouts.ways(stage)
            made = []
            for number, (table, mask) in enumerate(zip(self._tensors, self._trained, strict=True)):
                part = -(-table.elements[mask] // self._ways(number, mask, stage))
                made.append(round_up(part * itemsize).sum(axis=0))
            made[-1] = made[-1] - round_up(-(-self._tied_trained // ways) * itemsize)
            self._made[key] = made
        return self._made[key]

    def whole(self, index: int, itemsize: int) -> Column:
        """Bytes of a segment's trained tensors with every one it uses, tied ones included."""
        trained = self._tensors[index].elements[self._trained[index]]
        total: Column = round_up(trained * itemsize).sum(axis=0)
        return total

    def tied(self, itemsize: int) -> Column:
        """Bytes of the trained table that embedding and head share; 0 where they share none."""
        return round_up(self._tied_trained * itemsize)

    def total(self, itemsize: int, stage: int = 0) -> Column:
        """Bytes of every trained tensor of the rank's part of the model."""
        return self._over_stage(self.per_segment(itemsize, stage))

    def one_by_one(self, held: Sequence[tuple[int, int]], itemsize: int) -> Column:
        """Bytes a step makes that goes through the trained tensors in turn.

        Each of `held` is a moment: tensors of the parameter's own size, and of the one before it,
        whose names are not taken over yet.
        """
        in_order: list[Column] = []
        for number, (table, mask) in enumerate(zip(self._tensors, self._trained, strict=True)):
            if mask.any():
                # The second instance of a block follows the first.
                in_order += (1 + self.segments[number].repeats) * [
                    table.elements[mask] * self.here(number)
                ]
        most: Column = self._nothing
        if not in_order:
            return most
        sizes = round_up(-(-np.concatenate(in_order) // self.layouts.ways(1)) * itemsize)
        before = np.vstack([np.zeros_like(sizes[:1]), sizes[:-1]])
        for own, left in held:
            most = np.maximum(most, (own * sizes + left * before).max(axis=0))
        return most

    def optimizer(self, optimizer: Optimizer) -> Column:
        """State tensors, and the master copy where there is one.

        Paged states are in unified memory, which PyTorch's allocator does not count.
        """
        kind, width = optimizers()[optimizer.name], self.widths.state
        if kind.paged:
            return self._nothing
        size: Column = self._nothing
        if kind.whole_states is not None:
            item = kind.states[0].bytes or width if kind.states else width
            size = kind.whole_states * self.total(item, 1)
        else:
            size = self._over_stage(self._state_bytes(kind, width, optimizer.rank))
        if self.widths.master:
            size = size + self.total(self.widths.master, 1)
        return size

    def _state_bytes(self, kind: OptimizerKind, width: int, rank: int) -> list[Column]:
        ways, made = self.layouts.ways(1), []
        for number, segment in enumerate(self.segments):
            table = chosen(self._tensors[number], self._trained[number])
            split = self._ways(number, self._trained[number], 1)
            made.append(state_bytes(kind, table, segment.role, ways=split, width=width, rank=rank))
        if self._tied_trained.any():
            only = self._tied_trained[None, :]
            rows = np.ones_like(only)
            table = TensorTable(only, rows, only, np.ones(1, dtype=bool))
            role: Role = self.segments[-1].role
            tied = state_bytes(kind, table, role, ways=ways, width=width, rank=rank)
            made[-1] = np.maximum(made[-1] - tied, 0)
        return made

    def _over_stage(self, parts: Sequence[Column]) -> Column:
        total: Column = self._nothing
        for count, part in zip(self.counts, parts, strict=True):
            total = total + count * part
        return total

    # -- everything -----------------------------------------------------------------------------

    def weights(self, stage: int = 3) -> Column:
        """Bytes of all weights at rest on one rank: frozen ones as stored, trained ones in
        theirs; without what `unsharded` has where they are split."""
        made = self._at_rest(self.widths.stored, self.widths.trained, stage)
        return self._over_stage([w + b for w, b in zip(made, self._buffers, strict=True)])

    def unread(self, itemsize: int, stage: int = 0) -> Column:
        """Bytes at a width of the weights that no operator reads."""
        made = []
        for number, (segment, table) in enumerate(zip(self.segments, self._tensors, strict=True)):
            total: Column = self._nothing
            for group in segment.program.parameter_groups:
                if group.unread:
                    part = -(-table.elements[group.rows] // self._ways(number, group.rows, stage))
                    total = total + round_up(part * itemsize).sum(axis=0)
            made.append(total)
        return self._over_stage(made)

    def unfilled(self) -> Column:
        """Bytes at most that the allocator's segments of the weights leave empty."""
        widths = self.widths
        return self._over_stage(self._at_rest(widths.stored, widths.trained, 3, unfilled))

    def unsharded(self) -> Column:
        """Bytes of quantised weights that are no parameters: whole on every GPU, whatever moves."""
        made = []
        for segment, table in zip(self.segments, self._tensors, strict=True):
            total: Column = self._nothing
            for group in segment.program.parameter_groups:
                if group.stored is not None:
                    size = group.stored.whole_bytes(table.elements[group.rows])
                    total = total + round_up(size).sum(axis=0)
            made.append(total)
        return self._over_stage(made)

    def _at_rest(
        self,
        frozen: int,
        trained: int,
        stage: int,
        measure: Measure = requested,
        *,
        unread: bool = True,
    ) -> list[Column]:
        """Bytes of every tensor of one instance of each segment, tied ones the embedding's.

        Without those that are `unread` only what an operator reads.
        """
        ways, made = self.layouts.ways(stage), []
        for number, (segment, table) in enumerate(zip(self.segments, self._tensors, strict=True)):
            total: Column = self._nothing
            for group in segment.program.parameter_groups:
                if group.unread and not unread:
                    continue
                part = -(-table.elements[group.rows] // self._ways(number, group.rows, stage))
                if group.stored is not None:
                    size = group.stored.parameter_bytes(part)
                else:
                    size = part * (trained if group.trained else frozen)
                total = total + measure(size)
            made.append(total)
        width = trained if self._tied_trained.any() else frozen
        made[-1] = made[-1] - measure(-(-self._tied // ways)[None, :] * width)
        return made

    def gathered_whole(self) -> list[Column]:
        """Bytes of one instance of each segment as it is gathered to be computed with."""
        types = self.widths.types
        return self._at_rest(types.weight, types.trained or types.weight, 0, unread=False)

    def gathered_total(self) -> Column:
        """Bytes of the rank's part of the model as it is computed with."""
        return self._over_stage(self.gathered_whole())

    def largest_module(self) -> Column:
        """Bytes of the largest tensor of any kind as it is computed with."""
        largest: Column = self._nothing
        for table in self._tensors:
            if len(table.elements):
                largest = np.maximum(largest, table.elements.max(axis=0))
        return largest * self.widths.types.weight

    def loaded_whole(self) -> list[Column]:
        """Bytes of one instance of each segment as it is loaded."""
        return self._at_rest(self.widths.stored, self.widths.trained, 0)

    def small_tensors(self, limit: int) -> Column:
        """Bytes of all tensors of at most so many elements as they are computed with."""
        total: Column = self._nothing
        for count, table in zip(self.counts, self._tensors, strict=True):
            small = np.where(table.elements <= limit, table.elements, 0)
            total = total + count * small.sum(axis=0)
        return total * self.widths.types.weight

    def trained_on_rank(self, column: int) -> tuple[int, int]:
        """Elements that a column's rank trains, before sharding: of experts, and others.

        Tied tensors count once.
        """
        made = [0, -int(self._tied_trained[column])]
        rows = zip(self.counts, self._tensors, self._trained, self._experts, strict=True)
        for count, table, trained, experts in rows:
            size = int(count[column]) * table.elements[:, column]
            made[0] += int(size[trained & experts].sum())
            made[1] += int(size[trained & ~experts].sum())
        return made[0], made[1]

    def distinct_matrices(self, itemsize: int) -> Column:
        """Bytes of one tensor of every shape that the linear layers' trained weights have."""
        return itemsize * distinct_matrices(self.segments, self.counts, self._tensors)

    def matrices(self, itemsize: int) -> Column:
        """Bytes of one copy of every matrix of the blocks."""
        total: Column = self._nothing
        for segment, count, table in zip(self.segments, self.counts, self._tensors, strict=True):
            if segment.repeats:
                total = total + count * table.elements[table.is_matrix].sum(axis=0)
        return total * itemsize

    @property
    def gradient_width(self) -> int:
        """Bytes per element of a gradient as the backward pass makes it."""
        return self.widths.types.trained or self.widths.types.weight
