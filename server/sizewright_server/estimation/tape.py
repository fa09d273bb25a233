"""A small model of eager autograd: which storage is live between any two operators.

A front end writes a block of a network as the operators PyTorch would run, in their order, on
`Value`s with symbolic shapes. The tape then knows, without any tensor existing,

* the forward events (allocate, free) with gradients recorded, and without;
* what autograd keeps for the backward pass;
* the backward events, by running the recorded backward rules in reverse with reference counts.

A value dies after its last use in Python unless autograd saved it. `backward.py` runs the backward
rules.

Shapes are tuples of integers and names; `profile.py` puts numbers in for many layouts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from sizewright_server.estimation.weight_formats import WeightFormat

if TYPE_CHECKING:
    from sizewright_server.estimation.backward import Backward

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
    #: A node keeps it as an attribute, so that it lives as long as the graph does.
    lingers: bool = False
    #: The model's output has it until the step is over.
    stays: bool = False
    #: Autocast's cache has it until the forward pass is over.
    cached: bool = False
    #: "product" or "attention": the operators that selective checkpointing chooses among.
    result_of: str = ""
    #: The next block is given it, and where blocks are checkpointed keeps it.
    handed_on: bool = False
    #: Its name where several segments of a model use it; empty where only this one does.
    shared: str = ""
    #: What autograd keeps of the turns of a loop: without gradients each turn's is gone at once.
    recorded: bool = False


@dataclass(slots=True, eq=False)
class Value:
    """A tensor as Python sees it: a view of a storage, and one edge of the autograd graph."""

    storage: int
    shape: Shape
    itemsize: int
    needs_grad: bool
    #: Set for parameters: the gradient accumulates instead of flowing on.
    parameter: bool = False
    #: For a frozen parameter: the format it is stored in, where that is not its own type.
    stored: WeightFormat | None = None
    #: Its gradient exists when this tape's backward begins: a new one is added to it and dropped.
    adds: bool = False
    #: A parameter that asks for a gradient and gets none: it is used where none are recorded.
    idle: bool = False
    #: Which of a shared parameter's uses this is, in the order of the backward pass; autograd adds
    #: up the gradients of all and only then hands the sum on.
    use: Literal["only", "first", "more", "last"] = "only"
    #: For a frozen parameter: no operator reads it, so that it is never gathered.
    unread: bool = False


class Parameter(NamedTuple):
    """A parameter tensor: its shape, bytes per element as the tape reads it, and whether it trains.

    `stored` is the format of a frozen weight that is kept in fewer bits; None where it is kept as
    it is read. `unread`: no operator reads it. `idle`: it asks for a gradient and gets none.
    """

    shape: Shape
    itemsize: int
    trained: bool
    stored: WeightFormat | None
    unread: bool = False
    idle: bool = False


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
    #: Registered buffers: shape and bytes per element.
    buffers: list[tuple[Shape, int]] = field(default_factory=list)
    #: Tensors that this segment makes for later ones, and those that its backward pass releases.
    lent: list[Value] = field(default_factory=list)
    released: list[Value] = field(default_factory=list)
    #: The caller drops its name for the inputs when it makes the call: they die at their last use.
    inputs_die: bool = False
    #: The model keeps what every block gave until it returns.
    inputs_stay: bool = False
    #: Runs on fake tensors, whose gradients autograd never adds up in place.
    traced: bool = False
    #: Lent tensors whose life ends in this segment's forward pass.
    received: list[Value] = field(default_factory=list)
    #: Storages that wait in host memory from the forward pass to the backward pass.
    moved: set[int] = field(default_factory=set)
    #: Operators' saves that keep nothing in the forward pass (`again.py`).
    uncounted: set[tuple[int, int]] = field(default_factory=set)
    #: What is recorded now gets no gradients (`torch.no_grad`).
    frozen: bool = False

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Counts what is allocated inside towards `part`."""
        outer, self.part = self.part, part
        yield
        self.part = outer

    @contextmanager
    def without_gradients(self) -> Iterator[None]:
        """Values made inside need none, and parameters used inside get none."""
        self.frozen = True
        yield
        self.frozen = False

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
        value = self.external(shape, itemsize, needs_grad=trainable and not self.frozen)
        value.parameter, value.idle = True, trainable and self.frozen
        self.parameters.append(value)
        return value

    def borrowed_parameter(self, shape: Shape, itemsize: int, *, trainable: bool) -> Value:
        """A parameter that another segment owns and whose gradient that one makes."""
        value = self.external(shape, itemsize, needs_grad=trainable)
        value.parameter = value.adds = True
        value.use = "more"
        return value

    def lend(self, name: str, value: Value) -> None:
        """Keeps a tensor of this segment for later ones, under a name."""
        self.storages[value.storage].shared = name
        self.lent.append(value)

    def borrow(self, name: str, shape: Shape, itemsize: int, *, needs_grad: bool = False) -> Value:
        """A tensor that an earlier segment lent. Its gradient is added to what is there already."""
        value = self.external(shape, itemsize, needs_grad=needs_grad)
        self.storages[value.storage].shared = name
        value.adds = True
        return value

    def borrow_last(self, name: str, shape: Shape, itemsize: int) -> Value:
        """As `borrow`, in the first segment of the backward pass, which makes the gradient."""
        value = self.borrow(name, shape, itemsize, needs_grad=True)
        value.adds = False
        return value

    def reclaim(self, name: str, shape: Shape, itemsize: int) -> None:
        """Ends a lent tensor's life here in the forward pass."""
        value = self.allocate(shape, itemsize)
        self.storages[value].shared = name
        held = Value(value, shape, itemsize, needs_grad=False)
        self.received.append(held)
        self.hold(held)

    def release_in_backward(self, value: Value) -> None:
        """Ends a lent tensor's life when this segment's backward pass begins."""
        self.released.append(value)

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
        needs_grad = needs_grad and not self.frozen
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


def _pass_through(source: Value, out: Value) -> Callable[[Backward], None]:
    def backward(run: Backward) -> None:
        grad = run.take(out)
        if grad is not None:
            run.give(source, grad)

    return backward
