"""What FSDP holds beside its shards: units gathered to compute, gradients on their way.

Sources: torch/distributed/fsdp/_fully_shard (FSDP2), _flat_param.py and _runtime_utils.py (FSDP1);
the order of allocations of both was traced on PyTorch 2.13 with a fake process group
(measure/trace_sharded.py; tests/fixtures/sharded_traces.jsonl).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from sizewright_server.estimation.layout import FsdpSettings, Layout
from sizewright_server.estimation.model_states import ModelStates
from sizewright_server.estimation.offload import placement
from sizewright_server.estimation.parallel import ALWAYS
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.sharding import Buffers, WorkingSet


class FsdpWorkingSet(WorkingSet):
    """FSDP: units gathered to compute, gradients reduced to shards when a unit is done.

    The root unit (embeddings, final norm and head, unless they are units of their own) stays
    gathered from the first use to the end of the backward pass.
    """

    def __init__(self, states: ModelStates, layout: Layout, *, accumulates: bool = False) -> None:
        super().__init__(states, layout, accumulates=accumulates)
        self.settings: FsdpSettings = layout.fsdp
        self.keep = self.layouts.keep
        #: Shards wait on the host and come to the GPU to be gathered.
        self.offloaded = placement(layout).weights == 0

    def staged(self, gathered: Column) -> Column:
        """Bytes of the shards of so many gathered bytes, which an offloaded unit brings with it."""
        return gathered // self.layouts.shard if self.offloaded else self.nothing

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
            return self.root + 2 * self.units[index] + self.staged(self.units[index])
        if index == 0:
            return 2 * self.root + self.units[index] + self.staged(self.root)
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
            return held + self.staged(self.units[index])
        own = not_kept * self.units[index]
        if self._is_unit(index) and index == len(self.units) - 1:
            # A head of its own is fetched as the loss begins, and fetches when that is over.
            return self.root + own
        after = min(index + 1, len(self.units) - 1)
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

    An offloaded unit's shard stays on the GPU as long as the unit is gathered. Without
    `limit_all_gathers` the CPU runs ahead and several units may be gathered at once.

    With `use_orig_params` a unit may have frozen parameters beside trained ones: its gradient is
    then of the whole flat parameter, zeros with it. With `no_sync` gradients stay whole until the
    last micro-batch of a step. Both were seen on PyTorch 2.13 (FlatParameter.grad of two ranks).
    """

    def ahead_of_time(self) -> Column:
        """A unit whose free waits for the computing stream, and the root twice while it is made."""
        ahead: Column = self.root + np.max(self.units, axis=0)
        return ahead

    def _is_mixed(self, index: int) -> bool:
        """A unit that trains some of its parameters and not the others."""
        trained = self.states.segments[index].program.trained
        some = bool(trained.any()) and not bool(trained.all())
        return some and bool(self.settings.use_orig_params)

    @property
    def _unreduced(self) -> bool:
        """Micro-batches leave whole gradients behind."""
        return self.settings.no_sync and self.accumulates

    def _flat_gradients(self, width: int) -> list[Column]:
        """Bytes of each unit's whole gradient at a width."""
        made = self.states.per_segment(width)
        weight = self.states.widths.types.weight
        whole = self.states.gathered_whole()
        mixed = [self._is_mixed(i) for i in range(len(made))]
        sizes = [whole[i] // weight * width if mixed[i] else made[i] for i in range(len(made))]
        return self._of_units(sizes)

    @cached_property
    def _left(self) -> list[Column]:
        """What a unit's backward pass leaves: its gradient whole, or this rank's shard of it."""
        states, width = self.states, self.states.widths.gradient
        if self._unreduced:
            return self._flat_gradients(states.gradient_width)
        shards = self._of_units(states.per_segment(width, ALWAYS))
        flat, ways = self._flat_gradients(width), self.layouts.ways(ALWAYS)
        return [
            -(-flat[i] // ways) if self._is_mixed(i) else shard for i, shard in enumerate(shards)
        ]

    def accumulated(self) -> Column:
        """Whole gradients under `no_sync`, else shards of what is flat."""
        return self._in_all(self._left, whole=self._unreduced)

    def stepped(self) -> Column:
        """Shards of flat gradients."""
        reduced = FlatFsdpWorkingSet(self.states, self.layout)
        return self._in_all(reduced._left, whole=False)

    def _in_all(self, units: list[Column], *, whole: bool) -> Column:
        """Gradients of every segment, those of the root split over the ranks or whole."""
        states = self.states
        rest = states.per_segment(states.widths.gradient, 0 if whole else 2)
        total = self.nothing
        for index, count in enumerate(states.counts):
            gathered = self.layouts.gathers * int(self._is_unit(index))
            total = total + count * np.where(gathered > 0, units[index], rest[index])
        return total

    def forward(self, index: int) -> Column:
        """The unit that computes, and the next one where it is fetched ahead."""
        ahead = self.settings.forward_prefetch and self.states.segments[index].repeats
        held = self.root + self.units[index] * (1 + int(ahead))
        return held + self.staged(held)

    def backward(self, index: int) -> Column:
        """The unit and the next one; the head fetches the last block as the loss ends."""
        own = self.units[index]
        ahead = self.nothing
        if self.settings.backward_prefetch:
            repeats = self.states.segments[index].repeats
            ahead = own if repeats else self.units[max(index - 1, 0)]
        gathered = self.root + own + (1 - self.keep) * ahead
        return gathered + self.staged(gathered)

    def recomputing(self, index: int) -> Column:
        """A block that runs again fetches the next one of the forward pass ahead."""
        return self.units[index] * int(self.settings.forward_prefetch)

    def at_end(self, index: int) -> Column:
        """The flat gradient beside the ones it is made of, which it waits for.

        Where those are of a few parameters alone, zeros are made for the others.
        """
        flat = self._flat_gradients(self.states.gradient_width)[index]
        made = flat + flat if self._is_mixed(index) else flat
        return made if self._unreduced else np.maximum(made, self.reduced[index])

    def loading(self) -> Column:
        """Rank 0's weights come unit by unit: each is whole, and again as it is flattened."""
        if not self.settings.sync_module_states:
            return self.nothing
        sizes = self.states.loaded_whole()
        whole = np.max([self._of_root(sizes), *self._of_units(sizes)], axis=0)
        twice: Column = np.multiply(2, whole)
        return twice

    def after_backward(self, index: int) -> Column:
        """A flat gradient, whole or a shard, in place of those of the unit's parameters."""
        if not self._is_unit(index):
            return super().after_backward(index)
        made = self.states.whole(index, self.states.gradient_width)
        left: Column = self.layouts.gathers * (self._left[index] - made)
        return left - self.keep * self.units[index]

    def left_shard(self, index: int) -> Column:
        """What is added to what earlier micro-batches left."""
        return self._left[index] if self._is_unit(index) else self.nothing
