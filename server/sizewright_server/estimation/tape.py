"""A small model of eager autograd: which storage is live between any two operators.

A front end writes a block of a network as the operators PyTorch would run, in their order, on
`Value`s with symbolic shapes. The tape then knows, without any tensor existing,

* the forward events (allocate, free) with gradients recorded, and without;
* what autograd keeps for the backward pass;
* the backward events, by running the recorded backward rules in reverse with reference counts.

Rules mirrored (torch/csrc/autograd: engine.cpp, input_buffer.cpp, accumulate_grad.h, PyTorch 2.13):
a value dies after its last use in Python unless autograd saved it; a node's incoming gradients, its
temporaries and its saved tensors die when the node has run; a second gradient of a value is added
in place when nobody else holds the first; the first gradient of a parameter becomes its `.grad`.

Shapes are tuples of integers and names; `profile.py` puts numbers in for many layouts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

Dim: TypeAlias = int | str
Shape: TypeAlias = tuple[Dim, ...]


@dataclass(slots=True)
class Storage:
    """One allocation: its shape, bytes per element and the part of the answer it counts in."""

    shape: Shape
    itemsize: int
    part: str
    #: Lives outside the block: parameters, masks, position tables. Never allocated or freed here.
    external: bool = False
    #: Autograd nodes of this tape that save it.
    saves: int = 0


@dataclass(slots=True, eq=False)
class Value:
    """A tensor as Python sees it: a view of a storage, and one edge of the autograd graph."""

    storage: int
    shape: Shape
    itemsize: int
    needs_grad: bool
    #: Set for parameters: the gradient accumulates instead of flowing on.
    parameter: bool = False


@dataclass(slots=True)
class Op:
    """One operator: what it reads, makes, saves, and how it runs backward."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    saves: tuple[int, ...]
    backward: Callable[[Backward], None] | None


@dataclass(frozen=True, slots=True)
class Event:
    """`sign` +1 allocates the storage, -1 frees it."""

    sign: int
    storage: int


@dataclass(slots=True)
class Tape:
    """Records a block. `input` and `output` cross its borders; everything else is its own."""

    storages: list[Storage] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    part: str = "block"
    parameters: list[Value] = field(default_factory=list)

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Counts what is allocated inside towards `part`."""
        outer, self.part = self.part, part
        yield
        self.part = outer

    def allocate(self, shape: Shape, itemsize: int) -> int:
        """A new storage of this block."""
        self.storages.append(Storage(shape, itemsize, self.part))
        return len(self.storages) - 1

    def external(self, shape: Shape, itemsize: int, *, needs_grad: bool = False) -> Value:
        """A tensor that lives outside the block for the whole pass."""
        self.storages.append(Storage(shape, itemsize, self.part, external=True))
        return Value(len(self.storages) - 1, shape, itemsize, needs_grad)

    def parameter(self, shape: Shape, itemsize: int, *, trainable: bool) -> Value:
        """A parameter; its gradient stays as `.grad`."""
        value = self.external(shape, itemsize, needs_grad=trainable)
        value.parameter = True
        self.parameters.append(value)
        return value

    def input(self, shape: Shape, itemsize: int, *, needs_grad: bool) -> Value:
        """What the block before hands over. Dies in this block unless saved."""
        value = Value(self.allocate(shape, itemsize), shape, itemsize, needs_grad)
        self.inputs = (*self.inputs, value)
        return value

    def finish(self, *outputs: Value) -> None:
        """Names what the block hands on."""
        self.outputs = outputs

    def value(self, shape: Shape, itemsize: int, *, needs_grad: bool) -> Value:
        """A fresh value in a fresh storage."""
        return Value(self.allocate(shape, itemsize), shape, itemsize, needs_grad)

    def view(self, of: Value, shape: Shape) -> Value:
        """Another shape of the same storage; the gradient passes through as it is."""
        out = Value(of.storage, shape, of.itemsize, of.needs_grad)
        self.record((of,), (out,), backward=_pass_through(of, out))
        return out

    def hold(self, *values: Value) -> None:
        """A Python name keeps these alive until here."""
        self.ops.append(Op(values, (), (), None))

    def record(
        self,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        *,
        saves: tuple[Value, ...] = (),
        backward: Callable[[Backward], None] | None = None,
    ) -> None:
        """Appends an operator. It is a node of the graph when any output needs a gradient."""
        node = any(out.needs_grad for out in outputs)
        saved = tuple(value.storage for value in saves) if node else ()
        for storage in saved:
            self.storages[storage].saves += 1
        self.ops.append(Op(inputs, outputs, saved, backward if node else None))

    def forward_events(self, *, keep_saved: bool) -> list[Event]:
        """The forward pass, with saved tensors kept or (no_grad) not."""
        return _forward(self, keep_saved, len(self.ops), keep_inputs=False)

    def checkpointed_events(self) -> list[Event]:
        """The forward pass without gradients of a checkpointed block, which keeps its inputs."""
        return _forward(self, False, len(self.ops), keep_inputs=True)

    def recompute_events(self) -> list[Event]:
        """The forward pass as non-reentrant checkpointing runs it again.

        It stops before the last operator that saves anything (torch/utils/checkpoint.py,
        early_stop), so that operator's own output is not made again.
        """
        last = max((i for i, op in enumerate(self.ops) if op.saves), default=0)
        return _forward(self, True, last, keep_inputs=True)

    def backward_events(self, *, accumulating: bool = False) -> tuple[list[Event], list[Storage]]:
        """The backward pass; the storages it makes are numbered after the forward's.

        `accumulating`: every parameter has a gradient already, and new ones are added into it.
        """
        run = self.run_backward(accumulating=accumulating)
        return run.events, run.made

    def run_backward(self, *, accumulating: bool = False) -> Backward:
        """The backward pass with the gradients that cross the block's borders."""
        run = Backward(self, accumulating=accumulating)
        run.walk()
        return run


def _pass_through(source: Value, out: Value) -> Callable[[Backward], None]:
    def backward(run: Backward) -> None:
        grad = run.take(out)
        if grad is not None:
            run.give(source, grad)

    return backward


def _forward(tape: Tape, keep_saved: bool, stop: int, *, keep_inputs: bool) -> list[Event]:
    """Allocation at the operator that makes a storage, release after its last use.

    `stop` is the operator before which the pass ends. The caller's name for an input dies when the
    block returns, unless a checkpoint keeps it.
    """
    last_use: dict[int, int] = {}
    for index, op in enumerate(tape.ops):
        for value in (*op.inputs, *op.outputs):
            last_use[value.storage] = index
    inputs = {value.storage for value in tape.inputs}
    kept = {value.storage for value in tape.outputs} | inputs
    kept |= {i for i, s in enumerate(tape.storages) if s.external or (keep_saved and s.saves)}
    events: list[Event] = []
    alive: set[int] = set(inputs)
    for index, op in enumerate(tape.ops[:stop]):
        for storage in dict.fromkeys(out.storage for out in op.outputs):
            if storage not in alive and not tape.storages[storage].external:
                alive.add(storage)
                events.append(Event(+1, storage))
        for storage in dict.fromkeys(value.storage for value in (*op.inputs, *op.outputs)):
            if last_use[storage] == index and storage in alive - kept:
                alive.discard(storage)
                events.append(Event(-1, storage))
    # A recomputation that stops early unwinds the Python frame, and its names with it.
    left = alive - kept if stop < len(tape.ops) else set()
    outputs = {value.storage for value in tape.outputs}
    for storage in inputs - outputs if not keep_inputs else set():
        if not (keep_saved and tape.storages[storage].saves):
            left.add(storage)
    return events + [Event(-1, storage) for storage in sorted(left)]


class Backward:
    """One backward pass over a tape. Rules call `take`, `new`, `free` and `give`."""

    def __init__(self, tape: Tape, *, accumulating: bool = False) -> None:
        self.tape = tape
        self.accumulating = accumulating
        self.events: list[Event] = []
        self.made: list[Storage] = []
        self.output_grads: list[int] = []
        self.input_grads: list[int | None] = []
        self.parameter_grads: list[int | None] = []
        self._count = len(tape.storages)
        self._holders: dict[int, int] = {}
        self._grads: dict[int, int] = {}
        self._owned: list[int] = []
        self._gifts: list[tuple[Value, int]] = []
        self._saved = {i: s.saves for i, s in enumerate(tape.storages) if s.saves}

    def walk(self) -> None:
        """Runs every node in reverse. The gradients of the outputs are alive at the start."""
        for out in self.tape.outputs:
            if out.needs_grad:
                grad = self._make(out.shape, out.itemsize, "gradient of activations")
                self._grads[id(out)] = grad
                self.output_grads.append(grad)
        for op in reversed(self.tape.ops):
            if op.backward is not None:
                self._run(op)
        self.input_grads = [self._grads.get(id(value)) for value in self.tape.inputs]
        self.parameter_grads = [self._grads.get(id(value)) for value in self.tape.parameters]

    def take(self, out: Value) -> int | None:
        """The gradient that has arrived for an output, now held by the running node."""
        grad = self._grads.pop(id(out), None)
        if grad is not None:
            self._owned.append(grad)
        return grad

    def new(self, shape: Shape, itemsize: int, part: str = "backward temporaries") -> int:
        """A storage made by the running node; it dies with the node unless given on."""
        storage = self._make(shape, itemsize, part)
        self.events.append(Event(+1, storage))
        self._owned.append(storage)
        return storage

    def like(self, value: Value) -> int:
        """A new gradient with a value's shape and type."""
        part = "gradients" if value.parameter else "gradient of activations"
        return self.new(value.shape, value.itemsize, part)

    def free(self, storage: int) -> None:
        """The running node drops a storage before it ends."""
        self._owned.remove(storage)
        self._release(storage)

    def give(self, target: Value, grad: int) -> None:
        """Delivers a gradient when the node has ended."""
        if target.needs_grad:
            self._holders[grad] += 1
            self._gifts.append((target, grad))

    def _run(self, op: Op) -> None:
        assert op.backward is not None
        op.backward(self)
        for storage in self._owned:
            self._release(storage)
        self._owned.clear()
        for storage in op.saves:
            self._saved[storage] -= 1
            if self._saved[storage] == 0 and not self.tape.storages[storage].external:
                self.events.append(Event(-1, storage))
        gifts, self._gifts = self._gifts, []
        for target, grad in gifts:
            self._accumulate(target, grad)

    def _accumulate(self, target: Value, grad: int) -> None:
        if target.parameter and self.accumulating:
            self._release(grad)
            return
        held = self._grads.get(id(target))
        if held is None:
            self._grads[id(target)] = grad
            return
        if not target.parameter and self._holders[held] > 1:
            total = self._make(target.shape, target.itemsize, "gradient of activations")
            self.events.append(Event(+1, total))
            self._grads[id(target)] = total
            self._release(held)
        self._release(grad)

    def _make(self, shape: Shape, itemsize: int, part: str) -> int:
        self.made.append(Storage(shape, itemsize, part))
        storage = self._count + len(self.made) - 1
        self._holders[storage] = 1
        return storage

    def _release(self, storage: int) -> None:
        self._holders[storage] -= 1
        if self._holders[storage] == 0:
            self.events.append(Event(-1, storage))
