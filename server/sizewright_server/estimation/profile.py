"""Puts numbers into a tape: live bytes over its events, for many layouts in one walk.

A program is a tape compiled to index arrays. Its passes share one table of storages; a table of
sizes is one row per distinct (shape, width) and one column per layout, so a walk is a gather, a
cumulative sum and a maximum, whatever the number of layouts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.backward import run_backward
from sizewright_server.estimation.checkpoints import (
    checkpointed_events,
    kept_storages,
    recompute_events,
)
from sizewright_server.estimation.forward import forward_pass
from sizewright_server.estimation.tape import Event, Parameter, Shape, Tape

Column = NDArray[np.int64]

#: The CUDA caching allocator rounds every request up to this (c10/cuda/CUDACachingAllocator.cpp).
ALLOCATION_QUANTUM_BYTES = 512


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One pass over a block as arrays: +1/-1 per event, and the event's storage."""

    signs: NDArray[np.int64]
    storages: NDArray[np.int64]


#: A pass in which nothing is allocated or freed.
EMPTY_PASS = Pass(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """Shapes with their widths as arrays: what several storages have in common is sized once.

    `factors` are rows of `names`, one row per kind; `scale` is what is a number in each.
    """

    names: tuple[str, ...]
    factors: NDArray[np.int64]
    scale: NDArray[np.int64]

    @classmethod
    def of(cls, kinds: Sequence[tuple[Shape, int]]) -> Kinds:
        """Kinds of these shapes and widths."""
        names = {"one": 0}
        scale, rows = [], []
        for shape, itemsize in kinds:
            rows.append([names.setdefault(d, len(names)) for d in shape if isinstance(d, str)])
            scale.append(itemsize * math.prod(d for d in shape if isinstance(d, int)))
        factors = np.zeros((len(kinds), max(map(len, rows), default=0)), dtype=np.int64)
        for at, row in enumerate(rows):
            factors[at, : len(row)] = row
        return cls(tuple(names), factors, np.array(scale, dtype=np.int64))

    def having(self, name: str) -> NDArray[np.bool_]:
        """Which kinds have a dimension."""
        if name not in self.names:
            return np.zeros(len(self.scale), dtype=np.bool_)
        found: NDArray[np.bool_] = (self.factors == self.names.index(name)).any(axis=1)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A compiled tape."""

    kinds: Kinds
    kind_of_storage: NDArray[np.int64]
    parts: tuple[str, ...]
    #: Names of the parts, and which of them each storage counts in.
    part_names: tuple[str, ...]
    part_of_storage: NDArray[np.int64]
    forward: Pass
    forward_without_grad: Pass
    checkpointed: Pass
    recompute: Pass
    backward: Pass
    backward_accumulating: Pass
    recompute_accumulating: Pass
    parameters: tuple[Parameter, ...]
    buffers: tuple[tuple[Shape, int], ...]
    #: Rows of every parameter as a matrix, its first dimension; then columns, all others.
    tensor_sides: Kinds
    trained: NDArray[np.bool_]
    #: Those that train, and those that ask for a gradient and get none.
    asking: NDArray[np.bool_]
    output_storages: tuple[int, ...]
    input_storages: tuple[int, ...]
    output_grads: tuple[int, ...]
    input_grads: tuple[int | None, ...]
    parameter_grads: tuple[int | None, ...]
    lingering: tuple[int, ...]
    staying: tuple[int, ...]
    #: Copies of weights that autocast's cache alone holds after a checkpointed pass.
    cached: tuple[int, ...]
    #: The shared table's gradient that waits between segments in the accumulating passes.
    waiting: int | None
    #: Storages that wait in host memory for the backward pass.
    moved: tuple[int, ...]
    #: Shape and width of each output but the first: what a block leaves in a cache.
    kept: tuple[tuple[Shape, int], ...]
    #: Names of the storages that several segments use.
    shared: dict[int, str]

    @property
    def accumulating_passes(self) -> tuple[Pass, Pass]:
        """Backward passes that add to gradients which are there."""
        return self.backward_accumulating, self.recompute_accumulating

    @property
    def backward_passes(self) -> tuple[Pass, ...]:
        """Every backward pass."""
        return self.backward, self.recompute, *self.accumulating_passes


def compile_program(tape: Tape, policy: str = "", *, checkpointed: bool = True) -> Program:
    """Compiles every pass of a tape; `policy` says what selective checkpointing keeps.

    Without `checkpointed` the passes of a block that is recomputed are left empty.
    """
    run = run_backward(tape)
    backward, made = run.events, run.made
    adding = run_backward(tape, accumulating=True).events
    storages = [*tape.storages, *made]
    for value in (*tape.inputs, *tape.outputs):
        # One name on both sides of a block's border, so that what one block makes and the next
        # frees is the same part.
        if storages[value.storage].part not in ("kv-cache", "head", "loss"):
            storages[value.storage].part = "hidden-states"
    names: dict[str, int] = {}
    for storage in storages:
        names.setdefault(storage.part, len(names))
    kinds: dict[tuple[Shape, int], int] = {}
    kind_of = [kinds.setdefault((s.shape, s.itemsize), len(kinds)) for s in storages]
    parameters = tuple(
        Parameter(p.shape, p.itemsize, p.needs_grad, p.stored, p.unread, p.idle)
        for p in tape.parameters
    )
    again = _recomputed(tape, policy) if checkpointed else [EMPTY_PASS, EMPTY_PASS]
    return Program(
        kinds=Kinds.of(tuple(kinds)),
        kind_of_storage=np.array(kind_of, dtype=np.int64),
        parts=tuple(s.part for s in storages),
        part_names=tuple(names),
        part_of_storage=np.array([names[s.part] for s in storages], dtype=np.int64),
        forward=_forward(tape, keep_saved=True),
        forward_without_grad=_forward(tape, keep_saved=False),
        checkpointed=_pass(checkpointed_events(tape, policy)),
        recompute=again[0],
        backward=_pass(backward),
        backward_accumulating=_pass(adding),
        recompute_accumulating=again[1],
        parameters=parameters,
        buffers=tuple(tape.buffers),
        tensor_sides=_sides(parameters),
        trained=np.array([parameter.trained for parameter in parameters], dtype=bool),
        asking=np.array(
            [parameter.trained or parameter.idle for parameter in parameters], dtype=bool
        ),
        output_storages=tuple(v.storage for v in tape.outputs),
        input_storages=tuple(v.storage for v in tape.inputs),
        output_grads=tuple(run.output_grads),
        input_grads=tuple(run.input_grads),
        parameter_grads=tuple(run.parameter_grads),
        lingering=tuple(i for i, storage in enumerate(tape.storages) if storage.lingers),
        staying=tuple(i for i, storage in enumerate(tape.storages) if storage.stays),
        cached=tuple(_cached_alone(tape, policy)),
        waiting=run.waiting,
        moved=tuple(sorted(tape.moved)),
        kept=tuple((v.shape, v.itemsize) for v in tape.outputs[1:]),
        shared={i: s.shared for i, s in enumerate(storages) if s.shared},
    )


def _recomputed(tape: Tape, policy: str) -> list[Pass]:
    """The backward passes of a block that is recomputed: one alone, and one that accumulates."""
    released = [
        Event(-1, value.storage) for value in tape.inputs if not tape.storages[value.storage].saves
    ]
    return [
        _pass([*recompute_events(tape, policy), *events, *released])
        for events in (
            run_backward(tape, recomputed=True).events,
            run_backward(tape, recomputed=True, accumulating=True).events,
        )
    ]


def _cached_alone(tape: Tape, policy: str) -> list[int]:
    kept = kept_storages(tape, policy)
    return [i for i, storage in enumerate(tape.storages) if storage.cached and i not in kept]


def _sides(parameters: Sequence[Parameter]) -> Kinds:
    shapes: list[Shape] = [parameter.shape for parameter in parameters] or [(0,)]
    return Kinds.of([(side, 1) for side in (*(s[:1] for s in shapes), *(s[1:] for s in shapes))])


def _forward(tape: Tape, *, keep_saved: bool) -> Pass:
    events = forward_pass(tape, len(tape.ops), keep_saved=keep_saved, keep_inputs=False)
    return _pass(events)


def _pass(events: Sequence[Event]) -> Pass:
    return Pass(
        np.array([event.sign for event in events], dtype=np.int64),
        np.array([event.storage for event in events], dtype=np.int64),
    )


def elements(shape: Shape, dims: Mapping[str, Column]) -> Column:
    """Elements of a shape, one per layout."""
    count: int | Column = 1
    for dim in shape:
        count = count * (dim if isinstance(dim, int) else dims[dim])
    return np.full(1, count, dtype=np.int64) if isinstance(count, int) else count


def buffer_bytes(program: Program, dims: Mapping[str, Column]) -> Column:
    """Registered buffers of one instance."""
    total: Column = np.zeros(1, dtype=np.int64)
    for shape, itemsize in program.buffers:
        total = total + round_up(elements(shape, dims) * itemsize)
    return total


def round_up(size_bytes: Column) -> Column:
    """A request as the allocator rounds it."""
    quantum = ALLOCATION_QUANTUM_BYTES
    return (size_bytes + (quantum - 1)) // quantum * quantum


def kind_sizes(kinds: Kinds, dims: Mapping[str, Column]) -> Column:
    """The size of every kind: a row each, a column per layout."""
    table = np.array([dims[name] for name in kinds.names])
    sizes: Column = table[kinds.factors].prod(axis=1) * kinds.scale[:, None]
    return sizes


def storage_bytes(program: Program, dims: Mapping[str, Column]) -> Column:
    """Bytes of every storage: a row per storage, a column per layout."""
    return round_up(kind_sizes(program.kinds, dims))[program.kind_of_storage]
