"""Expands a schedule into the sequence of requests and releases of a whole run, block by block.

A request is `(handle, bytes)`, a release `(handle, -1)`. Handles join what one block makes and the
next one frees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.optimizers import optimizers
from sizewright_server.estimation.profile import (
    EMPTY_PASS,
    Column,
    elements,
    round_up,
    storage_bytes,
)
from sizewright_server.estimation.replay_counts import replayed_counts
from sizewright_server.estimation.tape import Parameter
from sizewright_server.estimation.timeline import Stage
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.workload import Training

if TYPE_CHECKING:
    from sizewright_server.estimation.architecture import Sizes
    from sizewright_server.estimation.inference import InferenceGroup

Handle: TypeAlias = tuple[int, int, int]
Request: TypeAlias = tuple[Handle, int]

RELEASE = -1
#: Segment numbers of handles that belong to no block.
PARAMETERS, STATES, TEMPORARIES, SHARED, INPUTS = -1, -2, -3, -4, -6


class Expansion:
    """The run of one layout (the first of a group) as requests and releases."""

    def __init__(self, group: TrainingGroup | InferenceGroup) -> None:
        self.group = group
        self.index = {segment.name: i for i, segment in enumerate(group.segments)}
        self._names: dict[str, int] = {}
        whole = [c if isinstance(c, int) else int(c[0]) for c in group.counts]
        self._counts = replayed_counts(group, whole)
        #: Fewer blocks are replayed than the rank has, and of these runs none.
        self.cut = self._counts != whole
        self._left_out = {i for i, n in enumerate(whole) if n and not self._counts[i]}
        #: The weights are there: only from now on are live bytes compared with the schedule's.
        self.running = False

    def waiting_bytes(self) -> int:
        """Bytes that the replay counts as live and the schedule as freed."""
        return 0

    def requests(self) -> Iterator[Request]:
        """Weights, then two training steps or one prefill and decode."""
        weights = self._tensor_bytes()
        yield from (((PARAMETERS, 0, i), size) for i, size in enumerate(weights))
        copies = [((PARAMETERS, 1, i), size) for i, size in enumerate(self._dropped_tables())]
        yield from copies
        yield from ((handle, RELEASE) for handle, _ in copies)
        self.running = True
        yield from self._inputs()
        if not isinstance(self.group, TrainingGroup):
            yield from self._one_tensor(self._passes(self.group.all_stages))
            return
        trained = self._tensor_bytes(trained=True)
        yield from self._step(self.group, trained, first=True)
        yield from self._step(self.group, trained, first=False)

    def _inputs(self) -> Iterator[Request]:
        """The batch, which follows the weights: images need segments of their own."""
        group = self.group
        inputs = group.resident.inputs if isinstance(group, TrainingGroup) else group.inputs()
        if int(inputs[0]):
            yield (INPUTS, 0, 0), int(inputs[0])

    def _one_tensor(self, requests: Iterator[Request]) -> Iterator[Request]:
        """Embeddings under the frame's name are the first block's input: one block of memory.

        The schedule counts them apart, as every block's input is freed by the block.
        """
        output = self.group.segments[0].program.output_storages[0]
        read, named = (0, self._last(0), output), (SHARED, self._name("embeddings"), 0)
        size, joined = 0, False
        for handle, change in requests:
            if handle == read and change > 0:
                size = change
            if handle == named and change == size > 0:
                joined = True
            elif handle == named and joined:
                joined = False
                yield read, RELEASE
            elif handle != read or not joined:
                yield handle, change

    def _step(self, group: TrainingGroup, weights: list[int], *, first: bool) -> Iterator[Request]:
        if group.adding:
            # The first micro-batch makes the gradients that the others add to.
            yield from self._passes(group.first_of_several().all_stages)
        yield from self._passes(group.all_stages)
        states = int(group.resident.optimizer[0]) // max(1, sum(weights))
        if first:
            for i, size in enumerate(weights):
                yield from (((STATES, k, i), size) for k in range(states))
        if group.training.optimizer.step == "for-loop":
            yield from self._one_by_one(group, weights)
        elif int(group.schedule.step_temporary[0]) >= sum(weights):
            yield from (((TEMPORARIES, 0, i), size) for i, size in enumerate(weights))
            yield from (((TEMPORARIES, 0, i), RELEASE) for i in range(len(weights)))
        yield from self._released_after_step(group)

    def _one_by_one(self, group: TrainingGroup, weights: list[int]) -> Iterator[Request]:
        """A step that goes from tensor to tensor; some names live on until the next one's."""
        held = optimizers()[group.training.optimizer.name].loop
        made = max((own for own, _ in held), default=0)
        named = max((left for _, left in held), default=0)
        for i, size in enumerate(weights):
            for k in range(made):
                yield (TEMPORARIES, i, k), size
                if named == made and i:
                    yield (TEMPORARIES, i - 1, k), RELEASE
            last = i == len(weights) - 1
            for k in range(made):
                if k < made - named:
                    yield (TEMPORARIES, i, k), RELEASE
                elif named < made and i:
                    yield (TEMPORARIES, i - 1, k), RELEASE
                if last and k >= made - named:
                    yield (TEMPORARIES, i, k), RELEASE

    def _released_after_step(self, group: TrainingGroup) -> Iterator[Request]:
        """The outputs' logits and every gradient: `zero_grad` sets them to None."""
        for number, segment in enumerate(group.segments):
            program = segment.program
            for instance in range(self._count(number)):
                outputs = (*program.output_storages[1:], *program.staying)
                for storage in (*program.parameter_grads, *outputs):
                    if storage is not None:
                        yield (number, instance, storage), RELEASE

    def _passes(self, stages: Sequence[Stage]) -> Iterator[Request]:
        last = len(self.group.segments) - 1
        for stage in stages:
            if stage.events is EMPTY_PASS:
                yield from self._closing()
                continue
            number = self.index[stage.segment]
            if number in self._left_out:
                continue
            segment = self.group.segments[number]
            storages = stage.events.storages
            changes = np.where(stage.events.signs > 0, stage.sizes[storages, 0], RELEASE).tolist()
            touched = storages.tolist()
            backward = stage.events in segment.program.backward_passes
            count = self._count(number) if int(stage.count[0]) else 0
            order = range(count - 1, -1, -1) if backward else range(count)
            for instance in order:
                shared: dict[int, Handle] = {
                    storage: (SHARED, self._name(name), 0)
                    for storage, name in segment.program.shared.items()
                }
                shared |= self._shared(segment, number, instance, last)
                waiting = segment.program.waiting
                if waiting is not None and stage.events in segment.program.accumulating_passes:
                    shared[waiting] = (SHARED, self._name("table gradient"), 0)
                yield from self._before(stage, number, instance, backward=backward)
                # Every event of a whole run passes here: a list and a zip are its cheapest form.
                handles = [shared.get(s) or (number, instance, s) for s in touched]
                yield from zip(handles, changes, strict=True)
                yield from self._after(stage, number, instance, backward=backward)
            if not backward and segment.role == "head":
                yield from self._emptied_cache()
            if backward and number == 0 and self._tied_bytes():
                # The table's second gradient is added to the head's and dropped.
                grad = segment.program.parameter_grads[0]
                if grad is not None:
                    yield (0, 0, grad), RELEASE

    def _emptied_cache(self) -> Iterator[Request]:
        """Autocast's copies of checkpointed blocks' weights, when the forward pass is over."""
        if not isinstance(self.group, TrainingGroup):
            return
        for number, segment in enumerate(self.group.segments):
            if self.group.is_checkpointed(segment):
                for instance in range(self._count(number)):
                    for storage in segment.program.cached:
                        yield (number, instance, storage), RELEASE

    def _before(
        self, stage: Stage, number: int, instance: int, *, backward: bool
    ) -> Iterator[Request]:
        """What a library requests before one instance of a pass runs; nothing on one rank."""
        yield from ()

    def _after(
        self, stage: Stage, number: int, instance: int, *, backward: bool
    ) -> Iterator[Request]:
        """What it requests and releases after it."""
        yield from ()

    def _closing(self) -> Iterator[Request]:
        """What it does when the backward pass is over."""
        yield from ()

    def _shared(self, segment: Segment, number: int, instance: int, last: int) -> dict[int, Handle]:
        """Handles of what crosses the borders of one instance, in its neighbours' names."""
        program, shared = segment.program, {}
        if program.input_storages:
            run = self._beside(number, -1)
            before = (number, instance - 1) if instance else (run, self._last(run))
            other = self.group.segments[before[0]].program
            shared[program.input_storages[0]] = (*before, other.output_storages[0])
        final = number == last and instance == self._last(number)
        if program.output_grads and not final:
            within = instance < self._last(number)
            after = (number, instance + 1) if within else (self._beside(number, 1), 0)
            # A segment without inputs begins another stack: nothing flows back across its border.
            grads = self.group.segments[after[0]].program.input_grads
            grad = grads[0] if grads else None
            if grad is not None:
                shared[program.output_grads[0]] = (*after, grad)
        return shared

    def _beside(self, number: int, step: int) -> int:
        """The segment before (-1) or after (1) another, of those that are replayed."""
        number += step
        while number in self._left_out:
            number += step
        return number

    def _count(self, number: int) -> int:
        """Instances of a segment that are replayed, of those on the rank."""
        return self._counts[number]

    def _name(self, name: str) -> int:
        """A number for a tensor that segments share."""
        return self._names.setdefault(name, len(self._names))

    def _last(self, number: int) -> int:
        return self._count(number) - 1

    def _tensor_bytes(self, *, trained: bool = False) -> list[int]:
        """Every parameter tensor in the order of the model, a tied head's table once; with
        `trained` only those that train."""
        sizes: list[int] = []
        one_of: dict[tuple[int, Sizes], list[int]] = {}
        for number, segment in enumerate(self.group.segments):
            # Blocks of one kind, however they alternate, have the same tensors.
            kind = (id(segment.program), segment.sizes)
            if kind not in one_of:
                dims = self.group.dims_of.of(segment.sizes)
                one_of[kind] = [
                    int(round_up(_stored_bytes(parameter, dims))[0])
                    for parameter in segment.program.parameters
                    if parameter.trained or not trained
                ]
            sizes += one_of[kind] * self._count(number)
        tied = self._tied_bytes()
        if tied in sizes:
            del sizes[len(sizes) - 1 - sizes[::-1].index(tied)]
        return sizes

    def _dropped_tables(self) -> list[int]:
        """Tables that a model made on the GPU has before it ties them to the first one.

        The head's own, and one of each of two stacks. A model that is loaded has them on the host,
        or never.
        """
        group = self.group
        run = group.training if isinstance(group, TrainingGroup) else group.inference
        fabric = isinstance(run, Training) and run.modeling_code == "litgpt"
        tied, first = self._tied_bytes(), group.segments[0]
        dropped = [tied] if tied and (run.traced or fabric) else []
        if not run.traced or first.name != "encoder-embedding" or first.sizes.patches:
            return dropped
        # An embedding's first storage is its table.
        table = storage_bytes(first.program, group.dims_of.of(first.sizes))[0]
        return [*dropped, *2 * [int(table[0])]]

    def _tied_bytes(self) -> int:
        head = self.group.architecture.head
        if not head.shares_table:
            return 0
        first = self.group.segments[0]
        width = first.program.parameters[0].itemsize
        return int(round_up(elements(("V", "E"), self.group.dims_of.of(first.sizes)) * width)[0])


def _stored_bytes(parameter: Parameter, dims: dict[str, Column]) -> Column:
    count = elements(parameter.shape, dims)
    if parameter.stored is not None:
        return parameter.stored.stored_bytes(count)
    return count * parameter.itemsize
