"""What FSDP holds beside its shards: units gathered to compute, gradients on their way.

Sources: torch/distributed/fsdp/_fully_shard (FSDP2), _flat_param.py and _runtime_utils.py (FSDP1);
the order of allocations of both was traced on PyTorch 2.13 with a fake process group
(measure/trace_sharded.py; tests/fixtures/sharded_traces.jsonl).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

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
        apart = self.settings.wrap == "block-and-tables"
        #: Which segments are units of their own.
        self.is_unit: NDArray[np.bool_] = (self.repeats | apart)[:, None]
        #: Those that are no blocks.
        self.others: list[int] = np.flatnonzero(~self.repeats).tolist()
        #: Shards wait on the host and come to the GPU to be gathered.
        self.offloaded = placement(layout).weights == 0

    def staged(self, gathered: Column) -> Column:
        """Bytes of the shards of so many gathered bytes, which an offloaded unit brings with it."""
        return gathered // self.layouts.shard if self.offloaded else self.nothing

    @cached_property
    def buffers(self) -> Buffers:
        """FSDP reduces each unit from a buffer of its own."""
        return Buffers(self.nothing, self.nothing, self.nothing)

    @cached_property
    def units(self) -> Column:
        """Gathered bytes of each segment that is a unit of its own."""
        return self._of_units(self.states.gathered_whole())

    @cached_property
    def reduced(self) -> Column:
        """A unit's whole gradients in the type they are reduced in."""
        return self._of_units(self.states.per_segment(self.states.widths.reduced))

    def _of_units(self, sizes: Column) -> Column:
        made: Column = sizes * (self.is_unit * self.layouts.gathers)
        return made

    def _beside(self, sizes: Column, step: int) -> Column:
        """Of each segment's unit the size of the one `step` further on in the model.

        In a run of equal blocks most have such a neighbour as they are themselves.
        """
        return np.where(self.states.counts == 1, np.roll(sizes, -step, axis=0), sizes)

    def _of_root(self, sizes: Column) -> Column:
        total: Column = (self.states.here * sizes * ~self.is_unit).sum(axis=0)
        return np.multiply(self.layouts.gathers, total)

    @cached_property
    def root(self) -> Column:
        """Gathered bytes of the root unit."""
        return self._of_root(self.states.gathered_whole())

    def forward(self) -> Column:
        """The unit, and the buffer of the next one's all-gather; a unit's is copied out of it."""
        units = self.units
        held: Column = self.root + 2 * units + self.staged(units)
        for index in self.others:
            held[index] = self.root + units[index] + units[index - 1]
        if 0 in self.others:
            held[0] = 2 * self.root + units[0] + self.staged(self.root)
        return held

    def after_forward(self) -> Column:
        """Units that are not resharded stay gathered."""
        return self.keep * self.units

    def backward(self) -> Column:
        """The unit, the next one fetched ahead, and the last one's gradients being reduced."""
        units, own = self.units, (1 - self.keep) * self.units
        fetched = self._beside(own, -1) if self.settings.backward_prefetch else self.none
        reducing = self._beside(self.reduced, +1)
        held: Column = self.root + units + fetched + reducing + self.staged(units)
        last = len(units) - 1
        for index in self.others:
            # A head of its own is fetched as the loss begins, and fetches when that is over.
            held[index] = self.root + own[index]
            if index < last or not self.is_unit[index, 0]:
                ahead = own[index - 1] if index else self.nothing
                held[index] += ahead + self.reduced[min(index + 1, last)]
        return held

    def after_backward(self) -> Column:
        """Shards in place of whole gradients; the root's stay whole to the end."""
        states, split = self.states, self.layouts.gathers
        shards = states.per_segment(states.widths.gradient, ALWAYS)
        made = split * (shards - states.whole(states.gradient_width)) - self.keep * self.units
        return np.where(self.is_unit, made, self._of_tables())

    def _of_tables(self) -> Column:
        """The correction for tables of the root, whose gradients stay whole."""
        return np.where(self.layouts.gathers > 0, 0, -self.tied_gradients())

    def left_shard(self) -> Column:
        """The shard of a unit's gradients."""
        return self._of_units(self.states.per_segment(self.states.widths.gradient, ALWAYS))

    def closing(self) -> Column:
        """The root's gradients, whole in the reducing type beside those of the computing type; its
        gathered parameters are freed before."""
        return self._of_root(self.states.per_segment(self.states.widths.reduced))


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

    @cached_property
    def _is_mixed(self) -> NDArray[np.bool_]:
        """Units that train some of their parameters and not the others."""
        asking = [segment.program.asking for segment in self.states.segments]
        some = [bool(mask.any()) and not bool(mask.all()) for mask in asking]
        return np.array(some)[:, None] & bool(self.settings.use_orig_params)

    @property
    def _unreduced(self) -> bool:
        """Micro-batches leave whole gradients behind."""
        return self.settings.no_sync and self.accumulates

    def _flat_gradients(self, width: int) -> Column:
        """Bytes of each unit's whole gradient at a width."""
        whole = self.states.gathered_whole() // self.states.widths.types.weight * width
        return self._of_units(np.where(self._is_mixed, whole, self.states.per_segment(width)))

    @cached_property
    def _left(self) -> Column:
        """What a unit's backward pass leaves: its gradient whole, or this rank's shard of it."""
        states, width = self.states, self.states.widths.gradient
        if self._unreduced:
            return self._flat_gradients(states.gradient_width)
        shards = self._of_units(states.per_segment(width, ALWAYS))
        flat, ways = self._flat_gradients(width), self.layouts.ways(ALWAYS)
        return np.where(self._is_mixed, -(-flat // ways), shards)

    def accumulated(self) -> Column:
        """Whole gradients under `no_sync`, else shards of what is flat."""
        return self._in_all(self._left, whole=self._unreduced)

    def stepped(self) -> Column:
        """Shards of flat gradients."""
        reduced = FlatFsdpWorkingSet(self.states, self.layout)
        return self._in_all(reduced._left, whole=False)

    def _in_all(self, units: Column, *, whole: bool) -> Column:
        """Gradients of every segment, those of the root split over the ranks or whole."""
        states = self.states
        rest = states.per_segment(states.widths.gradient, 0 if whole else 2)
        gathered = self.is_unit & (self.layouts.gathers > 0)
        total: Column = (states.counts * np.where(gathered, units, rest)).sum(axis=0)
        return total

    def forward(self) -> Column:
        """The unit that computes, and the next one where it is fetched ahead."""
        ahead = self.settings.forward_prefetch * self.repeats[:, None]
        held = self.root + self.units * (1 + ahead)
        return held + self.staged(held)

    def backward(self) -> Column:
        """The unit and the next one; the head fetches the last block as the loss ends."""
        gathered = self.root + self.units
        if self.settings.backward_prefetch:
            ahead = self._beside(self.units, -1)
            for index in self.others:
                ahead[index] = self.units[max(index - 1, 0)]
            gathered = gathered + (1 - self.keep) * ahead
        return gathered + self.staged(gathered)

    def recomputing(self) -> Column:
        """A block that runs again fetches the next one of the forward pass ahead."""
        return self.units * int(self.settings.forward_prefetch)

    def at_end(self) -> Column:
        """The flat gradient beside the ones it is made of, which it waits for.

        Where those are of a few parameters alone, zeros are made for the others.
        """
        made = self._flat_gradients(self.states.gradient_width) * (1 + self._is_mixed)
        return made if self._unreduced else np.maximum(made, self.reduced)

    def loading(self) -> Column:
        """Rank 0's weights come unit by unit: each is whole, and again as it is flattened."""
        if not self.settings.sync_module_states:
            return self.nothing
        sizes = self.states.loaded_whole()
        whole = np.max([self._of_root(sizes), *self._of_units(sizes)], axis=0)
        twice: Column = np.multiply(2, whole)
        return twice

    def after_backward(self) -> Column:
        """A flat gradient, whole or a shard, in place of those of the unit's parameters."""
        whole = self.states.whole(self.states.gradient_width)
        made = self.layouts.gathers * (self._left - whole) - self.keep * self.units
        return np.where(self.is_unit, made, self._of_tables())

    def left_shard(self) -> Column:
        """What is added to what earlier micro-batches left."""
        return self._left
