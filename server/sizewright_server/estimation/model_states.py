"""The model states of a group of layouts: weights, gradients, optimizer, whole or in shards.

`stage` says from which ZeRO stage on a state is split over the data-parallel ranks: 0 never, 1 to
3 as the stage, ALWAYS whatever the stage (the shard a reduction leaves).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.lowering import Dims, Segment
from sizewright_server.estimation.profile import Column, elements, round_up
from sizewright_server.estimation.states import (
    HALF,
    Widths,
    buffer_elements,
    optimizers,
)
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
        self._tensors = [_tensors(s, dims.of(s.sizes), count) for s in segments]
        head = architecture.head
        tied = head.tied and head.kind in ("causal-lm", "masked-lm")
        table = elements(("V", "E"), dims.of(segments[0].sizes))
        self._tied = table if tied else np.zeros_like(table)
        self._made: dict[tuple[int, int], list[Column]] = {}

    def ways(self, stage: int) -> Column:
        """Over how many ranks a state is split."""
        dp = self.layouts.dp
        if stage == ALWAYS:
            return dp
        return np.where((self.layouts.zero >= stage) & (stage > 0), dp, 1)

    def per_segment(self, itemsize: int, stage: int = 0) -> list[Column]:
        """Bytes of one instance of each segment; tied tensors are the embedding's."""
        key = (itemsize, stage)
        if key not in self._made:
            ways = self.ways(stage)
            made = [round_up(-(-t // ways) * itemsize).sum(axis=0) for t in self._tensors]
            made[-1] = made[-1] - round_up(-(-self._tied // ways) * itemsize)
            self._made[key] = made
        return self._made[key]

    def whole(self, index: int, itemsize: int) -> Column:
        """Bytes of one instance of a segment with every tensor it uses, tied ones included."""
        total: Column = round_up(self._tensors[index] * itemsize).sum(axis=0)
        return total

    def tied(self, itemsize: int) -> Column:
        """Bytes of the table that embedding and head share; 0 where they share none."""
        return round_up(self._tied * itemsize)

    def total(self, itemsize: int, stage: int = 0) -> Column:
        """Bytes of the whole model on one rank."""
        total: Column = np.zeros_like(self.layouts.dp)
        for segment, part in zip(self.segments, self.per_segment(itemsize, stage), strict=True):
            total = total + segment.count * part
        return total

    def largest_tensor(self, itemsize: int, stage: int) -> Column:
        """Bytes of the largest tensor."""
        ways, largest = self.ways(stage), np.zeros_like(self.layouts.dp)
        for tensors in self._tensors:
            if len(tensors):
                largest = np.maximum(largest, tensors.max(axis=0))
        return -(-largest // ways) * itemsize

    def optimizer(self, optimizer: Optimizer) -> Column:
        """State tensors, and the master copy where there is one."""
        size = optimizers()[optimizer.name].states * self.total(self.widths.state, 1)
        if self.widths.master:
            size = size + self.total(self.widths.master, 1)
        return size

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
        sizes = self.per_segment(self.widths.types.weight)
        for segment, size in zip(self.segments, sizes, strict=True):
            if not segment.repeats:
                total = total + size
        return self.gathered(total)

    def units(self) -> list[Column]:
        """Parameters gathered at a time in each segment: one block (FSDP2), half the live window
        (DeepSpeed); nothing beside the root in the segments that belong to it."""
        width = self.widths.types.weight
        if self.sharding == "deepspeed":
            window = buffer_elements("deepspeed_live_parameters", "value") * HALF
            half = np.minimum(self.total(width), window) // 2
            return self._of_blocks([half] * len(self.segments))
        return self._of_blocks(self.per_segment(width))

    def reduced_units(self) -> list[Column]:
        """One block's whole gradients on their way to their shards, per segment."""
        return self._of_blocks(self.per_segment(self.widths.reduced))

    def _of_blocks(self, sizes: list[Column]) -> list[Column]:
        nothing = np.zeros_like(self.layouts.dp)
        return [
            self.gathered(size) if segment.repeats else nothing
            for segment, size in zip(self.segments, sizes, strict=True)
        ]


def _tensors(segment: Segment, dims: dict[str, Column], layouts: int) -> Column:
    """Elements of every parameter tensor: a row each, a column per layout."""
    shapes = [shape for shape, _ in segment.program.parameters]
    made = np.empty((len(shapes), layouts), dtype=np.int64)
    for row, shape in enumerate(shapes):
        made[row] = elements(shape, dims)
    return made
