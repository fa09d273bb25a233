"""What each sharding library holds beside a model's states while a step runs.

A working set says, for the i-th segment of a stage, what is held only while its forward or backward
pass runs (gathered parameters, gradients on their way to their shards), what a pass leaves beyond
what its tape does, and which buffers are there throughout. All are bytes per rank, as columns over
layouts. Symbols: u bytes of a unit in the computing type, N sharding ranks.

Sources: torch/nn/parallel/distributed.py (buckets), torch/distributed/fsdp/_fully_shard and
fully_sharded_data_parallel.py, deepspeed/runtime/zero (engine.py, stage_1_and_2.py, stage3.py,
partitioned_param_coordinator.py), Megatron-LM core/distributed/param_and_grad_buffer.py; FSDP2's
order of allocations was traced on PyTorch 2.13 with a fake process group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sizewright_server.estimation.layout import FsdpSettings, Layout
from sizewright_server.estimation.model_states import ModelStates
from sizewright_server.estimation.parallel import ALWAYS
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

    def __init__(self, states: ModelStates, layout: Layout) -> None:
        self.states, self.layout = states, layout
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

    def after_backward(self, index: int) -> Column:
        """Correction from whole gradients in the computing type to what stays of them.

        The tied table's two gradients are added up and kept once.
        """
        if self.states.segments[index].role == "embedding":
            return -self.states.tied(self.states.gradient_width)
        return self.nothing

    def left_shard(self, index: int) -> Column:
        """Of what `after_backward` leaves: the new shard, which is added to one that is there."""
        return self.nothing

    def closing(self) -> Column:
        """Held after the last backward pass, when the root's gradients are reduced."""
        return self.nothing


class FsdpWorkingSet(WorkingSet):
    """FSDP: units gathered to compute, gradients reduced to shards when a unit is done.

    The root unit (embeddings, final norm and head, unless they are units of their own) stays
    gathered from the first use to the end of the backward pass.
    """

    def __init__(self, states: ModelStates, layout: Layout) -> None:
        super().__init__(states, layout)
        self.settings: FsdpSettings = layout.fsdp
        self.keep = self.layouts.keep

    @cached_property
    def buffers(self) -> Buffers:
        """FSDP reduces each unit from a buffer of its own."""
        return Buffers(self.nothing, self.nothing, self.nothing)

    def _is_unit(self, index: int) -> bool:
        return self.states.segments[index].repeats or self.settings.wrap == "block-and-tables"

    @cached_property
    def units(self) -> list[Column]:
        """Gathered bytes of each segment that is a unit of its own."""
        return self._of_units(self.states.gathered_whole())

    @cached_property
    def reduced(self) -> list[Column]:
        """A unit's whole gradients in the type they are reduced in."""
        return self._of_units(self.states.per_segment(self.states.widths.reduced))

    def _of_units(self, sizes: list[Column]) -> list[Column]:
        gathers = self.layouts.gathers
        return [
            gathers * size if self._is_unit(i) else self.nothing for i, size in enumerate(sizes)
        ]

    def _of_root(self, sizes: list[Column]) -> Column:
        total = self.nothing
        for index, size in enumerate(sizes):
            if not self._is_unit(index):
                total = total + self.states.here(index) * size
        return np.multiply(self.layouts.gathers, total)

    @cached_property
    def root(self) -> Column:
        """Gathered bytes of the root unit."""
        return self._of_root(self.states.gathered_whole())

    def forward(self, index: int) -> Column:
        """The unit, and the buffer of the next one's all-gather; a unit's is copied out of it."""
        segment = self.states.segments[index]
        if segment.repeats:
            return self.root + 2 * self.units[index]
        if index == 0:
            return 2 * self.root + self.units[index]
        return self.root + self.units[index] + self.units[index - 1]

    def after_forward(self, index: int) -> Column:
        """Units that are not resharded stay gathered."""
        return self.keep * self.units[index]

    def backward(self, index: int) -> Column:
        """The unit, the next one fetched ahead, and the last one's gradients being reduced."""
        not_kept = 1 - self.keep
        segment = self.states.segments[index]
        held: Column
        ahead = not_kept * (self.units[index - 1] if index else self.nothing)
        if segment.repeats:
            own = not_kept * self.units[index]
            fetched = own if self.settings.backward_prefetch else self.nothing
            held = self.root + self.units[index] + fetched + self.reduced[index]
            return held
        after = min(index + 1, len(self.units) - 1)
        own = not_kept * self.units[index]
        held = self.root + own + ahead + self.reduced[after]
        return held

    def after_backward(self, index: int) -> Column:
        """Shards in place of whole gradients; the root's stay whole to the end."""
        states, width = self.states, self.states.gradient_width
        split = self.layouts.gathers
        if self._is_unit(index):
            shard = states.per_segment(states.widths.gradient, ALWAYS)[index]
            kept = -self.keep * self.units[index]
            left: Column = split * (shard - states.whole(index, width)) + kept
            return left
        if states.segments[index].role == "embedding":
            return np.where(split > 0, 0, -states.tied(width))
        return self.nothing

    def left_shard(self, index: int) -> Column:
        """The shard of a unit's gradients."""
        if not self._is_unit(index):
            return self.nothing
        shards = self.states.per_segment(self.states.widths.gradient, ALWAYS)
        return np.multiply(self.layouts.gathers, shards[index])

    def closing(self) -> Column:
        """The root's gradients, whole in the reducing type beside those of the computing type."""
        return self.root + self._of_root(self.states.per_segment(self.states.widths.reduced))


class FlatFsdpWorkingSet(FsdpWorkingSet):
    """FSDP1: each unit is one flat parameter, gathered in place; its gradient is concatenated.

    Without `limit_all_gathers` the CPU runs ahead and several units may be gathered at once.
    """

    def ahead_of_time(self) -> Column:
        """A unit whose free waits for the computing stream, and the root twice while it is made."""
        ahead: Column = self.root + np.max(self.units, axis=0)
        return ahead

    def forward(self, index: int) -> Column:
        """Two units in flight: the one that computes and the next."""
        if not self.states.segments[index].repeats:
            return self.root + self.units[index]
        return self.root + 2 * self.units[index]

    def backward(self, index: int) -> Column:
        """The unit, the next one, and the flat gradient beside the ones it is made of."""
        own = self.units[index]
        ahead = own if self.settings.backward_prefetch else self.nothing
        flat = self._of_units(self.states.per_segment(self.states.gradient_width))
        in_flight = np.maximum(flat[index], self.reduced[index])
        return self.root + own + (1 - self.keep) * ahead + in_flight


class DeepSpeedWorkingSet(WorkingSet):
    """ZeRO: buckets at the configured size whatever the model's; stage 3 fetches modules."""

    @cached_property
    def buffers(self) -> Buffers:
        """The reduction buckets, where they are not stated from transformers' `auto` to 5e8.

        Stage 1 flattens one bucket of gradients at a time; stage 2 allocates its buckets whole,
        two with overlap_comm; stage 3 one, and a concatenation of it to reduce.
        """
        bounds = [self._buckets(bound) for bound in ("low", "value", "high")]
        return Buffers(bounds[1], bounds[1] - bounds[0], bounds[2] - bounds[1])

    def _buckets(self, bound: str) -> Column:
        width, given = self.states.widths.gradient, self.layout.zero_buffers
        stated = given.reduce_bucket_size
        size = buffer_elements("deepspeed_reduce_bucket", bound) if stated is None else stated
        whole = self.states.total(width)
        flattened = np.minimum(size * width, whole)
        overlap = given.overlap_comm
        if overlap is None:
            overlap = bound == "high" and stated is None
        second = size * width * (1 + int(overlap))
        third = size * width + flattened
        zero = self.layouts.zero
        made = np.where(zero == 1, flattened, np.where(zero == 2, second, third))
        if not given.contiguous_gradients:
            made = flattened
        return np.where(self.layouts.shard > 1, made, 0)

    def _elements(self, stated: int | None, name: str) -> int:
        return buffer_elements(name, "value") if stated is None else stated

    @cached_property
    def _ahead(self) -> Column:
        """Bytes fetched ahead, and of the largest module that computes."""
        width = self.states.widths.types.weight
        given = self.layout.zero_buffers.prefetch_bucket_size
        size = self._elements(given, "deepspeed_prefetch_bucket") * width
        ahead: Column = self.layouts.gathers * (size + self.states.largest_module())
        return ahead

    @cached_property
    def _live(self) -> Column:
        """Gathered at the turn from forward to backward: what is used again soon is not released.

        A module d parameters before the end is used again after 2 d of them.
        """
        width, given = self.states.widths.types.weight, self.layout.zero_buffers
        reuse = self._elements(given.max_reuse_distance, "deepspeed_reuse_distance")
        most = self._elements(given.max_live_parameters, "deepspeed_live_parameters")
        turn = min(reuse // 2, most) * width
        live: Column = self.layouts.gathers * np.minimum(self.states.gathered_total(), turn)
        return live

    def forward(self, index: int) -> Column:
        """Modules one at a time, and at the end those that the backward pass begins with."""
        last = index == len(self.states.segments) - 1
        return np.maximum(self._live, self._ahead) if last else self._ahead

    def backward(self, index: int) -> Column:
        """As forward, in the other order."""
        return self.forward(index)

    def after_backward(self, index: int) -> Column:
        """From stage 2 on gradients go to shards (stage 3's are there throughout)."""
        states, zero = self.states, self.layouts.zero
        width = states.gradient_width
        whole = states.whole(index, width)
        shard = states.per_segment(states.widths.gradient, ALWAYS)[index]
        tied = states.tied(width) if states.segments[index].role == "embedding" else 0
        split = self.layouts.shard > 1
        kept = np.where(zero == 3, 0, shard)
        return np.where((zero >= 2) & split, kept - whole, -tied)

    def left_shard(self, index: int) -> Column:
        """Stage 2's shard; stage 3's are there throughout."""
        shard = self.states.per_segment(self.states.widths.gradient, ALWAYS)[index]
        second = (self.layouts.zero == 2) & (self.layouts.shard > 1)
        return np.where(second, shard, 0)


def working_set(states: ModelStates, layout: Layout) -> WorkingSet:
    """The working set of a group's library, with the settings of its layouts."""
    kinds: dict[str, type[WorkingSet]] = {
        "ddp": WorkingSet,
        "megatron": WorkingSet,
        "deepspeed": DeepSpeedWorkingSet,
        "fsdp1": FlatFsdpWorkingSet,
        "fsdp2": FsdpWorkingSet,
    }
    return kinds[layout.sharding](states, layout)
