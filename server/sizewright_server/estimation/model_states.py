"""The model states of a group of layouts: weights, gradients, optimizer, whole or in shards.

`stage` says from which ZeRO stage on a state is split (`parallel.ParallelColumns.ways`). What is of
each segment is a table: a row per segment, a column per layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sizewright_server.estimation.architecture import Architecture, Role
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
from sizewright_server.estimation.segments import unfilled
from sizewright_server.estimation.states import Widths
from sizewright_server.estimation.tensor_tables import (
    HALVES,
    Tensors,
    chosen,
    distinct_matrices,
)
from sizewright_server.estimation.workload import Optimizer


class ModelStates:
    """Bytes of parameter-shaped tensors, per segment and in all; computed once per width."""

    def __init__(
        self,
        architecture: Architecture,
        segments: Sequence[Segment],
        counts: Column,
        dims: Dims,
        layouts: ParallelColumns,
        widths: Widths,
    ) -> None:
        self.layouts, self.widths = layouts, widths
        self.segments, self.counts = tuple(segments), counts
        #: 1 where the pipeline stage has the segment, else 0.
        self.here: Column = np.minimum(counts, 1)
        self._nothing: Column = np.zeros_like(layouts.dp)
        self._nothing.setflags(write=False)
        self.tensors = Tensors(segments, dims, flat=widths.flat)
        self._shares = self.tensors.rows.own_widths(widths.types.trained)
        head = architecture.head
        self._tied = self._tied_trained = self._nothing
        if head.shares_table:
            table = elements(("V", "E"), dims.of(segments[0].sizes))
            # The stages at both ends of a pipeline each have the table.
            self._tied = np.where(layouts.pp == 1, table, 0)
            if any(p.trained for p in segments[0].program.parameters[:1]):
                self._tied_trained = self._tied
        self._dims = dims
        self._made: dict[tuple[int, ...], Column] = {}

    def _ways(self, stage: int) -> Column:
        """Over how many ranks tensors are split: a row each where they differ."""
        if not self.tensors.rows.has_experts:
            return self.layouts.ways(stage)
        own, others = self.layouts.ways(stage, expert=True), self.layouts.ways(stage)
        return np.where(self.tensors.rows.experts, own, others)

    def _over_stage(self, parts: Column) -> Column:
        total: Column = (self.counts * parts).sum(axis=0)
        return total

    # -- what trains ----------------------------------------------------------------------------

    def _trained_bytes(self, part: Column, itemsize: int) -> Column:
        """Bytes of every trained tensor at a width that an adapter's would have."""
        if isinstance(self._shares, int):
            return part * itemsize
        return part * itemsize * self._shares // HALVES

    def per_segment(self, itemsize: int, stage: int = 0) -> Column:
        """Bytes of the trained tensors of one instance of each segment; tied ones are the
        embedding's."""
        key = (itemsize, stage)
        if key not in self._made:
            part = -(-self.tensors.trained // self._ways(stage))
            made = self.tensors.sums(round_up(self._trained_bytes(part, itemsize)))
            if self._tied_trained is not self._nothing:
                ways = self.layouts.ways(stage)
                made[-1] -= round_up(-(-self._tied_trained // ways) * itemsize)
            self._made[key] = made
        return self._made[key]

    def whole(self, itemsize: int) -> Column:
        """Bytes of each segment's trained tensors with every one it uses, tied ones included."""
        if (itemsize,) not in self._made:
            sizes = self._trained_bytes(self.tensors.trained, itemsize)
            self._made[itemsize,] = self.tensors.sums(round_up(sizes))
        return self._made[itemsize,]

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
        trained, every = (
            self.tensors.rows.trained[:, 0],
            self._trained_bytes(self.tensors.trained, 1),
        )
        for number, segment in enumerate(self.segments):
            rows = self.tensors.of(number)
            if trained[rows].any():
                # The second instance of a block follows the first.
                own = every[rows][trained[rows]] * self.here[number]
                in_order += (1 + segment.repeats) * [own]
        most: Column = self._nothing
        if not in_order:
            return most
        sizes = round_up(-(-np.concatenate(in_order) // self.layouts.ways(1)) * itemsize)
        before = np.vstack([np.zeros_like(sizes[:1]), sizes[:-1]])
        for own_count, left in held:
            most = np.maximum(most, (own_count * sizes + left * before).max(axis=0))
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

    def _state_bytes(self, kind: OptimizerKind, width: int, rank: int) -> Column:
        ways, every, made = self.layouts.ways(1), self._ways(1), []
        for number, segment in enumerate(self.segments):
            rows = self.tensors.of(number)
            mask = self.tensors.mask[rows, 0]
            table = chosen(self.tensors.table, rows, mask)
            split = every[rows][mask] if every.ndim > 1 else ways
            made.append(state_bytes(kind, table, segment.role, ways=split, width=width, rank=rank))
        if self._tied_trained.any():
            only = self._tied_trained[None, :]
            table = TensorTable(only, np.ones_like(only), only, np.ones(1, dtype=bool))
            role: Role = self.segments[-1].role
            tied = state_bytes(kind, table, role, ways=ways, width=width, rank=rank)
            made[-1] = np.maximum(made[-1] - tied, 0)
        return np.array(made)

    # -- everything -----------------------------------------------------------------------------

    def weights(self, stage: int = 3) -> Column:
        """Bytes of all weights at rest on one rank: frozen ones as stored, trained ones in
        theirs; without what `unsharded` has where they are split."""
        made = self._at_rest(self.widths.stored, self.widths.trained, stage)
        total = self._over_stage(made)
        for number, segment in enumerate(self.segments):
            if segment.program.buffers:
                size = buffer_bytes(segment.program, self._dims.of(segment.sizes))
                total = total + self.counts[number] * size
        return total

    def unread(self, itemsize: int, stage: int = 0) -> Column:
        """Bytes at a width of the weights that no operator reads, where none is quantised."""
        if not self.tensors.rows.has_unread:
            return self._nothing
        part = -(-self.tensors.table.elements // self._ways(stage))
        sizes = round_up(part * itemsize) * self.tensors.rows.unread
        return self._over_stage(self.tensors.sums(sizes))

    def unfilled(self) -> Column:
        """Bytes at most that the allocator's segments of the weights leave empty."""
        widths = self.widths
        return self._over_stage(self._measured(unfilled, widths.stored, widths.trained, 3))

    def unsharded(self) -> Column:
        """Bytes of quantised weights that are no parameters: whole on every GPU, whatever moves."""
        if not self.tensors.rows.packed:
            return self._nothing
        made = np.zeros_like(self.tensors.table.elements)
        for stored, rows in self.tensors.rows.packed:
            made[rows] = round_up(stored.whole_bytes(self.tensors.table.elements[rows]))
        return self._over_stage(self.tensors.sums(made))

    def _at_rest(self, frozen: int, trained: int, stage: int, *, unread: bool = True) -> Column:
        """Bytes of every tensor of one instance of each segment, tied ones the embedding's.

        Without those that are `unread` only what an operator reads.
        """
        key = (frozen, trained, stage, int(unread))
        if key not in self._made:
            self._made[key] = self._measured(round_up, frozen, trained, stage, unread=unread)
        return self._made[key]

    def _measured(
        self,
        measure: Callable[[Column], Column],
        frozen: int,
        trained: int,
        stage: int,
        *,
        unread: bool = True,
    ) -> Column:
        """What tensors of their sizes at rest come to by a measure, as `_at_rest`."""
        rows = self.tensors.rows
        part = -(-self.tensors.table.elements // self._ways(stage))
        size = np.where(rows.trained, self._trained_bytes(part, trained), part * frozen)
        for stored, packed in rows.packed:
            size[packed] = stored.parameter_bytes(part[packed])
        if not unread and rows.has_unread:
            size[rows.unread[:, 0]] = 0
        made = self.tensors.sums(measure(size))
        if self._tied is not self._nothing:
            width = trained if self._tied_trained.any() else frozen
            made[-1] -= measure(-(-self._tied // self.layouts.ways(stage)) * width)
        return made

    def gathered_whole(self) -> Column:
        """Bytes of one instance of each segment as it is gathered to be computed with."""
        types = self.widths.types
        return self._at_rest(types.weight, types.trained or types.weight, 0, unread=False)

    def gathered_total(self) -> Column:
        """Bytes of the rank's part of the model as it is computed with."""
        return self._over_stage(self.gathered_whole())

    def largest_module(self) -> Column:
        """Bytes of the largest tensor of any kind as it is computed with."""
        largest: Column = self.tensors.table.elements.max(axis=0) * self.widths.types.weight
        return largest

    def loaded_whole(self) -> Column:
        """Bytes of one instance of each segment as it is loaded."""
        return self._at_rest(self.widths.stored, self.widths.trained, 0)

    def small_tensors(self, limit: int) -> Column:
        """Bytes of all tensors of at most so many elements as they are computed with."""
        every = self.tensors.table.elements
        small = self.tensors.sums(np.where(every <= limit, every, 0))
        return self._over_stage(small) * self.widths.types.weight

    def trained_on_rank(self, column: int) -> tuple[int, int]:
        """Elements that a column's rank trains, before sharding: of experts, and others.

        Tied tensors count once.
        """
        count, trained = self.counts[:, column], self.tensors.trained[:, column, None]
        every = int((count * self.tensors.sums(trained)[:, 0]).sum())
        experts = 0
        if self.tensors.rows.has_experts:
            of_experts = self.tensors.sums(trained * self.tensors.rows.experts)
            experts = int((count * of_experts[:, 0]).sum())
        return experts, every - experts - int(self._tied_trained[column])

    def distinct_matrices(self, itemsize: int) -> Column:
        """Bytes of one tensor of every shape that the linear layers' trained weights have."""
        return itemsize * distinct_matrices(self.segments, self.here, self.tensors)

    def matrices(self, itemsize: int) -> Column:
        """Bytes of one copy of every matrix of the blocks."""
        table = self.tensors.table
        blocks = np.array([[segment.repeats] for segment in self.segments])
        sizes = self.tensors.sums(table.elements * table.is_matrix[:, None])
        return self._over_stage(sizes * blocks) * itemsize

    @property
    def gradient_width(self) -> int:
        """Bytes per element of a gradient as the backward pass makes it."""
        return self.widths.types.trained or self.widths.types.weight
