"""The requests of a run whose states are sharded, gathered, offloaded or spread over a pipeline.

What FSDP gathers comes from the pool of its own CUDA stream, which shares nothing with the pool of
the computing stream (torch/distributed/fsdp: unshard and all-gather copy-in streams). FSDP2 copies
each unit out of the gathered buffer; FSDP1 computes with the buffer itself. Buffers of other
libraries are requested once, and what they hold while a block runs as one request.
"""

from __future__ import annotations

from collections.abc import Iterator

from sizewright_server.estimation.architecture import Sizes
from sizewright_server.estimation.fsdp import FlatFsdpWorkingSet, FsdpWorkingSet
from sizewright_server.estimation.parallel import ALWAYS
from sizewright_server.estimation.replay_events import (
    PARAMETERS,
    RELEASE,
    STATES,
    Expansion,
    Handle,
    Request,
)
from sizewright_server.estimation.replay_units import Unit, rounded, unit_of
from sizewright_server.estimation.timeline import Stage
from sizewright_server.estimation.training import TrainingGroup

#: Segment numbers of handles, beside those of `replay_events`. GATHERED is of the other stream.
GATHERED, UNIT, REDUCED, SHARD, BUFFERS, HELD = -11, -12, -13, -14, -15, -16
WHOLE, STAGED = -17, -18
ROOT = -1
#: Pieces in which a tensor's optimizer state and master copy are made.
STATE_PIECES = 2
#: The flat parameter of a unit among its tensors, and what broadcasts of a module's states hold
#: (torch/distributed/fsdp/_init_utils.py, PARAM_BROADCAST_BUCKET_SIZE).
FLAT = -1
BROADCAST_BYTES = 250 * 2**20
#: Frees that FSDP1's rate limiter lets wait (_limiter_utils.py, _FreeEventQueue), and what a CPU
#: that nothing limits is taken to run ahead.
FREES_IN_FLIGHT, FREES_UNLIMITED = 2, 8
#: What is resident beside weights, states and inputs.
THROUGHOUT = (
    "gradients_kept",
    "buckets",
    "persisted",
    "narrow_weights",
    "stand_ins",
    "waiting",
    "workspaces",
)


class ShardedExpansion(Expansion):
    """The run of one layout as requests and releases, with its library's working set."""

    def __init__(self, group: TrainingGroup) -> None:
        super().__init__(group)
        self.training = group
        self.working = group.working
        self.layout = group.layout
        self.fsdp = isinstance(self.working, FsdpWorkingSet) and int(group.parallel.gathers[0])
        self.copies_out = not isinstance(self.working, FlatFsdpWorkingSet)
        self._reducing = (REDUCED, 0, 0)
        self._gathered: set[Handle] = set()
        self._pending: list[tuple[int, int]] = []

    def waiting_bytes(self) -> int:
        """Units whose frees wait for the computing stream."""
        if not self.fsdp or self.copies_out:
            return 0
        units = [self._unit_bytes(i) for i, _ in enumerate(self.training.segments)]
        return FREES_IN_FLIGHT * max(units)

    def requests(self) -> Iterator[Request]:
        """States and buffers that are there before the first step, then two steps."""
        resident = self.training.resident
        units = self._units()
        weights = [size for unit in units for size in unit.kept]
        for number, unit in enumerate(units):
            yield from self._load(number, unit)
        self.running = True
        for i, name in enumerate(THROUGHOUT):
            yield from _made((BUFFERS, 0, i), int(getattr(resident, name)[0]))
        yield from self._run(weights, first=True)
        yield from self._run(weights, first=False)

    def _load(self, number: int, unit: Unit) -> Iterator[Request]:
        """A unit's weights as they come to the GPU.

        FSDP1 moves the unit there whole, flattens it beside itself and clones its shard, which goes
        to the host where weights are offloaded (_flat_param.py; with sync_module_states through
        buffers of 250 MiB). Others are taken to make their shards at once.
        """
        yield from (((WHOLE, number, i), size) for i, size in enumerate(unit.unsharded))
        flattens = self.fsdp and not self.copies_out
        if flattens:
            yield from (((UNIT, number, i), size) for i, size in enumerate(unit.whole))
            if self.layout.fsdp.sync_module_states:
                yield from _made((HELD, ROOT, 0), min(BROADCAST_BYTES, sum(unit.whole)))
                yield (HELD, ROOT, 0), RELEASE
            yield from _made((UNIT, number, FLAT), sum(unit.whole))
        if self.training.placement.weights:
            yield from (((PARAMETERS, number, i), size) for i, size in enumerate(unit.kept))
        elif flattens:
            yield from _made((HELD, ROOT, 0), sum(unit.kept))
            yield (HELD, ROOT, 0), RELEASE
        if flattens:
            yield from (((UNIT, number, i), RELEASE) for i in range(FLAT, len(unit.whole)))

    def _run(self, weights: list[int], *, first: bool) -> Iterator[Request]:
        group = self.training
        if group.adding and not group.adds_in_place:
            yield from self._passes(group.all_stages)
        yield from self._passes(group.all_stages)
        whole = max(1, int(group.states.weights(3)[0]))
        states = int(group.resident.optimizer[0]) / whole / STATE_PIECES
        step = int(group.schedule.step_temporary[0]) / whole
        if first and states:
            for i, size in enumerate(weights):
                made = rounded(int(size * states))
                yield from (((STATES, k, i), made) for k in range(STATE_PIECES))
        if step:
            yield from (((HELD, ROOT, i), rounded(int(w * step))) for i, w in enumerate(weights))
            yield from (((HELD, ROOT, i), RELEASE) for i in range(len(weights)))
        yield from self._released_after_step(group)
        if not group.adding:
            for number in range(len(group.segments)):
                for instance in range(self._count(number)):
                    yield (SHARD, number, instance), RELEASE

    # -- what a library does around a pass -------------------------------------------------------

    def _before(
        self, stage: Stage, number: int, instance: int, *, backward: bool
    ) -> Iterator[Request]:
        if not self.fsdp:
            size = int(stage.during_bytes[0])
            if size:
                yield (HELD, number, instance), rounded(size)
            return
        if number == 0 and not backward:
            yield from self._gather(ROOT, 0, self._root_bytes())
        if not self.training.segments[number].repeats:
            return
        following = instance - 1 if backward else instance + 1
        yield from self._gather(number, instance, self._unit_bytes(number))
        if 0 <= following < self._count(number):
            yield from self._once(number, following, self._unit_bytes(number))

    def _after(
        self, stage: Stage, number: int, instance: int, *, backward: bool
    ) -> Iterator[Request]:
        if not self.fsdp:
            yield (HELD, number, instance), RELEASE
            if backward and int(stage.after_bytes[0]) < 0:
                yield from self._to_shards(number, instance)
            return
        if not self.training.segments[number].repeats:
            return
        if backward or not self.layout.keep_gathered:
            yield from self._freed(number, instance)
        if backward:
            yield from self._reduce(number, instance)

    def _closing(self) -> Iterator[Request]:
        """The root's gradients are reduced, and its parameters freed."""
        if not self.fsdp:
            return
        yield self._reducing, RELEASE
        roots = [i for i, s in enumerate(self.training.segments) if not s.repeats]
        width = self.training.widths.reduced
        sizes = self.training.states.per_segment(width)
        self._reducing = (REDUCED, ROOT, 0)
        yield from _made(self._reducing, sum(int(sizes[i][0]) for i in roots))
        for number in roots:
            for instance in range(self._count(number)):
                yield from self._to_shards(number, instance)
        yield self._reducing, RELEASE
        yield from self._freed(ROOT, 0)

    def _gather(self, number: int, instance: int, size: int) -> Iterator[Request]:
        """A unit whole: gathered if it is not yet, and under FSDP2 copied out."""
        yield from self._once(number, instance, size)
        if self.copies_out and size:
            yield (UNIT, number, instance), rounded(size)
            yield from self._dropped(number, instance)

    def _once(self, number: int, instance: int, size: int) -> Iterator[Request]:
        """The buffer of an all-gather, unless it is there."""
        handle = (GATHERED, number, instance)
        if (number, instance) in self._pending:
            self._pending.remove((number, instance))
        if size and handle not in self._gathered:
            self._gathered.add(handle)
            yield from _made((STAGED, number, instance), self._staged_bytes(size))
            yield handle, rounded(size)
            if self.copies_out and self._staged_bytes(size):
                yield (STAGED, number, instance), RELEASE

    def _dropped(self, number: int, instance: int) -> Iterator[Request]:
        self._gathered.discard((GATHERED, number, instance))
        yield (GATHERED, number, instance), RELEASE
        if not self.copies_out:
            yield (STAGED, number, instance), RELEASE

    def _freed(self, number: int, instance: int) -> Iterator[Request]:
        """A unit is resharded. FSDP1's buffer is reusable when the computing stream is past it, and
        the CPU runs ahead of it by as many frees as the rate limiter lets wait."""
        if self.copies_out:
            yield (UNIT, number, instance), RELEASE
            return
        self._pending.append((number, instance))
        waiting = FREES_IN_FLIGHT if self.layout.fsdp.limit_all_gathers else FREES_UNLIMITED
        while len(self._pending) > waiting:
            yield from self._dropped(*self._pending.pop(0))

    def _reduce(self, number: int, instance: int) -> Iterator[Request]:
        """Gradients go to the reduction's buffer, and from there to their shards."""
        yield self._reducing, RELEASE
        self._reducing = (REDUCED, number, instance)
        sizes = self.training.states.per_segment(self.training.widths.reduced)
        yield from _made(self._reducing, int(sizes[number][0]))
        yield from self._to_shards(number, instance)

    def _to_shards(self, number: int, instance: int) -> Iterator[Request]:
        group = self.training
        for storage in group.segments[number].program.parameter_grads:
            if storage is not None:
                yield (number, instance, storage), RELEASE
        stays = group.placement.gradients and not int(group.resident.gradients_kept[0])
        if stays:
            sizes = group.states.per_segment(group.widths.gradient, ALWAYS)
            yield from _made((SHARD, number, instance), int(sizes[number][0]))

    def _unit_bytes(self, number: int) -> int:
        assert isinstance(self.working, FsdpWorkingSet)
        return int(self.working.units[number][0])

    def _staged_bytes(self, size: int) -> int:
        """An offloaded unit's shard, on the GPU to be gathered."""
        assert isinstance(self.working, FsdpWorkingSet)
        return int(size // self.training.parallel.shard[0]) if self.working.offloaded else 0

    def _root_bytes(self) -> int:
        assert isinstance(self.working, FsdpWorkingSet)
        return int(self.working.root[0])

    def _units(self) -> list[Unit]:
        """What the rank's weights are made of, unit by unit; FSDP1's root comes last."""
        flat = self.fsdp and not self.copies_out
        units, root = [], Unit([], [], [])
        kinds: dict[tuple[int, Sizes], Unit] = {}
        for number, segment in enumerate(self.training.segments):
            # Blocks of one kind, however they alternate, have the same tensors.
            kind = (id(segment.program), segment.sizes)
            if kind not in kinds:
                kinds[kind] = unit_of(self.training, number)
                if flat:
                    kinds[kind].kept[:] = [rounded(sum(kinds[kind].kept))]
            tensors = kinds[kind]
            alone = segment.repeats or not flat
            for _ in range(self._count(number)):
                if alone:
                    units.append(tensors)
                else:
                    root = Unit(*(a + b for a, b in zip(root.parts, tensors.parts, strict=True)))
        return [*units, root] if flat else units


def _made(handle: Handle, size: int) -> Iterator[Request]:
    if size > 0:
        yield handle, rounded(size)
