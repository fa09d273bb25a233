"""What each sharding library holds beside a model's states while a step runs.

A working set says, for the i-th segment of a stage, what is held only while its forward or backward
pass runs (gathered parameters, gradients on their way to their shards), what a pass leaves beyond
what its tape does, and which buffers are there throughout. All are bytes per rank, as columns over
layouts. Symbols: u bytes of a unit in the computing type, N sharding ranks.

Here is what gathers nothing: torch/nn/parallel/distributed.py (buckets) and Megatron-LM's
core/distributed/param_and_grad_buffer.py. FSDP is in `fsdp`, DeepSpeed in `deepspeed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sizewright_server.estimation.layout import Layout
from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.model_states import ModelStates
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.states import buffer_elements


@dataclass(frozen=True, slots=True)
class Buffers:
    """Bytes of a library's own buffers, with what they may be less and more."""

    best: Column
    less: Column
    more: Column


class WorkingSet:
    """Replicas that gather nothing: one GPU, DDP and Megatron's distributed data parallel."""

    def __init__(self, states: ModelStates, layout: Layout, *, accumulates: bool = False) -> None:
        self.states, self.layout = states, layout
        #: A step has several micro-batches, whose gradients add up.
        self.accumulates = accumulates
        self.layouts = states.layouts
        self.nothing: Column = np.zeros_like(self.layouts.dp)

    @cached_property
    def buffers(self) -> Buffers:
        """DDP's reduction buckets: one more copy of the gradients.

        With `gradient_as_bucket_view` the buckets are the gradients, which then never go away.
        """
        if self.layout.bucket_view or self.layout.sharding == "megatron":
            return Buffers(self.nothing, self.nothing, self.nothing)
        size = np.where(
            self.layouts.replicas > 1, self.states.total(self.states.widths.gradient), 0
        )
        return Buffers(size, self.nothing, self.nothing)

    def ahead_of_time(self) -> Column:
        """What the pool of another stream may hold beyond what is gathered at a time."""
        return self.nothing

    def forward(self, index: int) -> Column:
        """Held while a segment runs forward."""
        return self.nothing

    def after_forward(self, index: int) -> Column:
        """Left by each instance's forward pass beyond its tape."""
        return self.nothing

    def backward(self, index: int) -> Column:
        """Held while a segment runs backward."""
        return self.nothing

    def recomputing(self, index: int) -> Column:
        """Held beside that where a checkpointed segment runs forward again."""
        return self.nothing

    def at_end(self, index: int) -> Column:
        """Held when an instance's backward pass has made all of its gradients, and only then."""
        return self.nothing

    def persisted(self) -> Column:
        """Parameters that stay gathered beside their shards."""
        return self.nothing

    def loading(self) -> Column:
        """Held while the weights are sharded at the start, beside the shards."""
        return self.nothing

    def after_backward(self, index: int) -> Column:
        """Correction from whole gradients in the computing type to what stays of them.

        The tied table's two gradients are added up and kept once.
        """
        if self.states.segments[index].role == "embedding":
            return -self.states.tied(self.states.gradient_width)
        return self.nothing

    def accumulated(self) -> Column:
        """Gradients that micro-batches have added up, as they are between two of them."""
        return self.states.total(self.states.widths.gradient, 2)

    def stepped(self) -> Column:
        """Gradients as the optimizer finds them."""
        return self.states.total(self.states.widths.gradient, 2)

    def left_shard(self, index: int) -> Column:
        """Of what `after_backward` leaves: the new shard, which is added to one that is there."""
        return self.nothing

    def closing(self) -> Column:
        """Held after the last backward pass, when the root's gradients are reduced."""
        return self.nothing


def engine_workspaces(layout: Layout, segments: Sequence[Segment], bound: str) -> int:
    """Bytes of Transformer Engine's own cuBLAS workspaces, more with experts' grouped products."""
    if layout.sharding != "megatron" or layout.megatron.transformer_impl == "local":
        return 0
    grouped = any(segment.sizes.experts for segment in segments)
    more = buffer_elements("transformer_engine_grouped_workspaces", bound) if grouped else 0
    return buffer_elements("transformer_engine_workspaces", bound) + more
