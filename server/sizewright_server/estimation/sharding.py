"""What each sharding library holds beside a model's states while a step runs.

A working set says, for every segment of a stage, what is held only while its forward or backward
pass runs (gathered parameters, gradients on their way to their shards), and what a pass leaves
beyond what its tape does: a row per segment, a column per layout. It also says which buffers are
there throughout. All are bytes per rank. Symbols: u bytes of a unit in the computing type, N
sharding ranks.

Here is what gathers nothing: torch/nn/parallel/distributed.py (buckets) and Megatron-LM's
core/distributed/param_and_grad_buffer.py. FSDP is in `fsdp`, DeepSpeed in `deepspeed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

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
        #: The same of every segment.
        self.none: Column = np.zeros_like(states.counts)
        self.none.setflags(write=False)
        segments = states.segments
        self.repeats: NDArray[np.bool_] = np.array([segment.repeats for segment in segments])
        self.is_embedding = [i for i, one in enumerate(segments) if one.role == "embedding"]

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

    def forward(self) -> Column:
        """Held while each segment runs forward."""
        return self.none

    def after_forward(self) -> Column:
        """Left by each instance's forward pass beyond its tape."""
        return self.none

    def backward(self) -> Column:
        """Held while each segment runs backward."""
        return self.none

    def recomputing(self) -> Column:
        """Held beside that where a checkpointed segment runs forward again."""
        return self.none

    def at_end(self) -> Column:
        """Held when an instance's backward pass has made all of its gradients, and only then."""
        return self.none

    def persisted(self) -> Column:
        """Parameters that stay gathered beside their shards."""
        return self.nothing

    def loading(self) -> Column:
        """Held while the weights are sharded at the start, beside the shards."""
        return self.nothing

    def after_backward(self) -> Column:
        """Correction from whole gradients in the computing type to what stays of them.

        The tied table's two gradients are added up and kept once.
        """
        return -self.tied_gradients()

    def tied_gradients(self) -> Column:
        """Bytes of the gradient that embedding and head share, in the embedding's row."""
        made = np.zeros_like(self.none)
        made[self.is_embedding] = self.states.tied(self.states.gradient_width)
        return made

    def accumulated(self) -> Column:
        """Gradients that micro-batches have added up, as they are between two of them."""
        return self.states.total(self.states.widths.gradient, 2)

    def stepped(self) -> Column:
        """Gradients as the optimizer finds them."""
        return self.states.total(self.states.widths.gradient, 2)

    def left_shard(self) -> Column:
        """Of what `after_backward` leaves: the new shard, which is added to one that is there."""
        return self.none

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
