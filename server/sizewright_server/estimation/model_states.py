"""The model states of a group of layouts: weights, gradients, optimizer, whole or in shards.

`stage` says from which ZeRO stage on a state is split over the data-parallel ranks: 0 never, 1 to
3 as the stage, ALWAYS whatever the stage (the shard a reduction leaves).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.architecture import Architecture, Role
from sizewright_server.estimation.lowering import Dims, Segment
from sizewright_server.estimation.optimizers import (
    OptimizerKind,
    TensorTable,
    optimizers,
    state_bytes,
)
from sizewright_server.estimation.profile import Column, elements, round_up
from sizewright_server.estimation.states import HALF, Widths, buffer_elements
from sizewright_server.estimation.workload import Optimizer, Sharding

ALWAYS = -1


@dataclass(frozen=True, slots=True)
class ParallelColumns:
    """The layouts of a group as columns."""

    dp: Column
    tp: Column
    zero: Column
    keep: Column


class ModelStates:
    """Bytes of parameter-shaped tensors, per segment and in all; computed once per width."""

    def __init__(
        self,
        architecture: Architecture,
        segments: Sequence[Segment],
        dims: Dims,
        layouts: ParallelColumns,
        widths: Widths,
        sharding: Sharding,
    ) -> None:
        self.layouts, self.widths, self.sharding = layouts, widths, sharding
        self.segments = tuple(segments)
        count = len(layouts.dp)
        self._tensors = [_table(s, dims.of(s.sizes), count) for s in segments]
        self._trained = [segment.program.trained for segment in segments]
        head = architecture.head
        tied = head.tied and head.kind in ("causal-lm", "masked-lm")
        table = elements(("V", "E"), dims.of(segments[0].sizes))
        self._tied = table if tied else np.zeros_like(table)
        trains_table = any(p.trained for p in segments[0].program.parameters[:1])
        self._tied_trained = self._tied if trains_table else np.zeros_like(table)
        self._made: dict[tuple[int, int], list[Column]] = {}

    def ways(self, stage: int) -> Column:
        """Over how many ranks a state is split."""
        dp = self.layouts.dp
        if stage == ALWAYS:
            return dp
        return np.where((self.layouts.zero >= stage) & (stage > 0), dp, 1)

    # -- what trains ----------------------------------------------------------------------------

    def per_segment(self, itemsize: int, stage: int = 0) -> list[Column]:
        """Bytes of the trained tensors of one instance of each segment; tied ones are the
        embedding's."""
        key = (itemsize, stage)
        if key not in self._made:
            ways = self.ways(stage)
            made = [
                round_up(-(-table.elements[mask] // ways) * itemsize).sum(axis=0)
                for table, mask in zip(self._tensors, self._trained, strict=True)
            ]
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
        """Bytes of every trained tensor of the model on one rank."""
        return self._over_model(self.per_segment(itemsize, stage))

    def largest_tensor(self, itemsize: int, stage: int) -> Column:
        """Bytes of the largest trained tensor."""
        ways, largest = self.ways(stage), np.zeros_like(self.layouts.dp)
        for table, mask in zip(self._tensors, self._trained, strict=True):
            if mask.any():
                largest = np.maximum(largest, table.elements[mask].max(axis=0))
        return -(-largest // ways) * itemsize

    def optimizer(self, optimizer: Optimizer) -> Column:
        """State tensors, and the master copy where there is one."""
        kind, width = optimizers()[optimizer.name], self.widths.state
        size: Column = np.zeros_like(self.layouts.dp)
        if kind.whole_states is not None:
            item = kind.states[0].bytes or width if kind.states else width
            size = kind.whole_states * self.total(item, 1)
        else:
            size = self._over_model(self._state_bytes(kind, width, optimizer.rank))
        if self.widths.master:
            size = size + self.total(self.widths.master, 1)
        return size

    def _state_bytes(self, kind: OptimizerKind, width: int, rank: int) -> list[Column]:
        ways, made = self.ways(1), []
        for number, segment in enumerate(self.segments):
            table = _chosen(self._tensors[number], self._trained[number])
            made.append(state_bytes(kind, table, segment.role, ways=ways, width=width, rank=rank))
        if self._tied_trained.any():
            only = self._tied_trained[None, :]
            rows = np.ones_like(only)
            table = TensorTable(only, rows, only, np.ones(1, dtype=bool))
            role: Role = self.segments[-1].role
            tied = state_bytes(kind, table, role, ways=ways, width=width, rank=rank)
            made[-1] = np.maximum(made[-1] - tied, 0)
        return made

    def _over_model(self, parts: Sequence[Column]) -> Column:
        total: Column = np.zeros_like(self.layouts.dp)
        for segment, part in zip(self.segments, parts, strict=True):
            total = total + segment.count * part
        return total

    # -- everything -----------------------------------------------------------------------------

    def weights(self, stage: int = 3) -> Column:
        """Bytes of all weights at rest on one rank: frozen ones as stored, trained ones in
        theirs."""
        return self._over_model(self._at_rest(self.widths.stored, self.widths.trained, stage))

    def _at_rest(self, frozen: int, trained: int, stage: int) -> list[Column]:
        """Bytes of every tensor of one instance of each segment, tied ones the embedding's."""
        ways, made = self.ways(stage), []
        for segment, table in zip(self.segments, self._tensors, strict=True):
            total: Column = np.zeros_like(self.layouts.dp)
            for group in segment.program.parameter_groups:
                part = -(-table.elements[group.rows] // ways)
                if group.stored is not None:
                    size = group.stored.stored_bytes(part)
                else:
                    size = part * (trained if group.trained else frozen)
                total = total + round_up(size).sum(axis=0)
            made.append(total)
        width = trained if self._tied_trained.any() else frozen
        made[-1] = made[-1] - round_up(-(-self._tied // ways) * width)
        return made

    def buckets(self, bound: str = "value") -> Column:
        """DDP's reduction buckets, one more copy of the gradients; DeepSpeed's one bucket.

        `gradient_as_bucket_view` is False by default (torch/nn/parallel/distributed.py).
        """
        if self.sharding == "fsdp2":
            return np.zeros_like(self.layouts.dp)
        size = self.total(self.widths.gradient)
        if self.sharding == "deepspeed":
            most = buffer_elements("deepspeed_reduce_bucket", bound) * self.widths.gradient
            size = np.minimum(size, most)
        return np.where(self.layouts.dp > 1, size, 0)

    def gathered(self, size: Column) -> Column:
        """A size where parameters are sharded and must be gathered, else 0."""
        return np.where((self.layouts.zero == 3) & (self.layouts.dp > 1), size, 0)

    def root(self) -> Column:
        """FSDP2's root unit: embeddings, final norms and head, gathered for the whole pass."""
        total: Column = np.zeros_like(self.layouts.dp)
        if self.sharding == "deepspeed":
            return total
        for segment, size in zip(self.segments, self._gathered_whole(), strict=True):
            if not segment.repeats:
                total = total + size
        return self.gathered(total)

    def _gathered_whole(self) -> list[Column]:
        """Bytes of one instance of each segment as it is gathered to be computed with."""
        types = self.widths.types
        return self._at_rest(types.weight, types.trained or types.weight, 0)

    def units(self) -> list[Column]:
        """Parameters gathered at a time in each segment: one block (FSDP2), half the live window
        (DeepSpeed); nothing beside the root in the segments that belong to it."""
        whole = self._gathered_whole()
        if self.sharding == "deepspeed":
            window = buffer_elements("deepspeed_live_parameters", "value") * HALF
            half = np.minimum(self._over_model(whole), window) // 2
            return self._of_blocks([half] * len(self.segments))
        return self._of_blocks(whole)

    def reduced_units(self) -> list[Column]:
        """One block's whole gradients on their way to their shards, per segment."""
        return self._of_blocks(self.per_segment(self.widths.reduced))

    def _of_blocks(self, sizes: list[Column]) -> list[Column]:
        nothing = np.zeros_like(self.layouts.dp)
        return [
            self.gathered(size) if segment.repeats else nothing
            for segment, size in zip(self.segments, sizes, strict=True)
        ]


def _table(segment: Segment, dims: dict[str, Column], layouts: int) -> TensorTable:
    """Every parameter tensor's elements, and its rows and columns as a matrix."""
    shapes = [parameter.shape for parameter in segment.program.parameters]
    made = np.empty((2, len(shapes), layouts), dtype=np.int64)
    for row, shape in enumerate(shapes):
        made[0, row] = elements(shape[:1], dims)
        made[1, row] = elements(shape[1:], dims)
    matrix = np.array([len(shape) > 1 for shape in shapes], dtype=bool)
    return TensorTable(made[0] * made[1], made[0], made[1], matrix)


def _chosen(table: TensorTable, mask: NDArray[np.bool_]) -> TensorTable:
    return TensorTable(
        table.elements[mask], table.rows[mask], table.columns[mask], table.is_matrix[mask]
    )
