"""The backward pass over a tape: gradients, temporaries and saved tensors, by reference count.

Rules mirrored (torch/csrc/autograd: engine.cpp, input_buffer.cpp, accumulate_grad.h, PyTorch 2.13):
a node's incoming gradients, its temporaries and its saved tensors die when the node has run; a
second gradient of a value is added in place when nobody else holds the first; the first gradient of
a parameter becomes its `.grad`.
"""

from __future__ import annotations

from collections.abc import Iterable

from sizewright_server.estimation.tape import Event, Op, Shape, Storage, Tape, Value


def run_backward(tape: Tape, *, accumulating: bool = False, recomputed: bool = False) -> Backward:
    """The backward pass; the storages it makes are numbered after the forward's.

    `accumulating`: every parameter has a gradient already, and new ones are added into it.
    `recomputed`: what is saved was made again by a checkpoint, which hands it to a node once.
    """
    run = Backward(tape, accumulating=accumulating, recomputed=recomputed)
    run.walk()
    return run


class Backward:
    """One backward pass over a tape. Rules call `take`, `new`, `free` and `give`."""

    def __init__(self, tape: Tape, *, accumulating: bool = False, recomputed: bool = False) -> None:
        self.tape = tape
        self.accumulating, self.recomputed = accumulating, recomputed
        self.events: list[Event] = []
        self.made: list[Storage] = []
        self.output_grads: list[int] = []
        self.input_grads: list[int | None] = []
        self.parameter_grads: list[int | None] = []
        #: The gradient of a shared table that, where micro-batches add up, waits for those of the
        #: table's other uses: made here, or where it ends here the one that another tape made.
        self.waiting: int | None = None
        self._count = len(tape.storages)
        self._holders: dict[int, int] = {}
        self._grads: dict[int, int] = {}
        self._taken: list[int] = []
        self._owned: list[int] = []
        #: Targets, their gradients, and whether these are yet to be cast or added up.
        self._gifts: list[tuple[Value, int, bool]] = []
        self._saved = {i: s.saves for i, s in enumerate(tape.storages) if s.saves}

    def walk(self) -> None:
        """Runs every node in reverse. The gradients of the outputs are alive at the start.

        A loss is the only root of its backward pass: what is returned beside it gets no gradient.
        """
        outputs = self.tape.outputs
        loss = outputs[:1] if outputs and outputs[0].shape == (1,) else outputs
        for out in (*loss, *self.tape.lent):
            if out.needs_grad:
                grad = self._make(out.shape, out.itemsize, "gradient of activations")
                self._grads[id(out)] = grad
                self.output_grads.append(grad)
                self._share(out, grad)
        for value in self.tape.released:
            if not self.tape.storages[value.storage].saves:
                self.events.append(Event(-1, value.storage))
        for op in reversed(self.tape.ops):
            if op.backward is not None:
                self._run(op)
        self.input_grads = [self._grads.get(id(value)) for value in self.tape.inputs]
        self.parameter_grads = [self._grads.get(id(value)) for value in self.tape.parameters]

    def take(self, out: Value) -> int | None:
        """The gradient that has arrived for an output, now held by the running node."""
        grad = self._grads.pop(id(out), None)
        if grad is not None:
            self._taken.append(grad)
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

    def save_again(self, storages: Iterable[int]) -> None:
        """Saves of nodes still to run, whose tensors exist from here on."""
        for storage in storages:
            self._saved[storage] = self._saved.get(storage, 0) + 1

    def in_place_of(self, value: Value, part: str = "gradient of activations") -> int:
        """A gradient that the running node writes over a tensor which it alone has saved."""
        grad = self._make(value.shape, value.itemsize, part)
        self.events += [Event(-1, value.storage), Event(+1, grad)]
        self._saved[value.storage] += 1  # what the node saved is gone already
        self._owned.append(grad)
        return grad

    def free(self, storage: int) -> None:
        """The running node drops a storage before it ends."""
        self._owned.remove(storage)
        self._release(storage)

    def give(self, target: Value, grad: int) -> None:
        """Delivers a gradient when the node has ended."""
        if target.needs_grad:
            self._holders[grad] += 1
            self._gifts.append((target, grad, False))

    def give_as(self, target: Value, of: Value, grad: int) -> None:
        """Delivers a gradient of `of`'s shape and type as one of the target's.

        Where they differ the engine casts it, or adds it up over what was broadcast, when all of
        the node's gradients are made (engine.cpp, validate_outputs).
        """
        if target.needs_grad:
            self._holders[grad] += 1
            differs = (target.shape, target.itemsize) != (of.shape, of.itemsize)
            self._gifts.append((target, grad, differs))

    def _run(self, op: Op) -> None:
        assert op.backward is not None
        op.backward(self)
        self._drop(self._owned)
        if self.recomputed:
            self._give_up(op)
        gifts = [(gift[0], self._fitted(*gift)) for gift in self._gifts]
        self._gifts = []
        if not self.recomputed:
            # torch frees what a node saved only when its results have been checked and cast.
            self._give_up(op)
        self._drop(self._taken)
        for target, grad in gifts:
            self._accumulate(target, grad)

    def _give_up(self, op: Op) -> None:
        """Frees what the node saved and no other node has saved."""
        for storage in op.saves:
            self._saved[storage] -= 1
            held = self.tape.storages[storage]
            if self._saved[storage] == 0 and not (held.external or held.stays):
                self.events.append(Event(-1, storage))

    def _drop(self, storages: list[int]) -> None:
        for storage in storages:
            self._release(storage)
        storages.clear()

    def _fitted(self, target: Value, grad: int, differs: bool) -> int:
        """The gradient as the target's own, made of one that differs."""
        if not differs:
            return grad
        part = "gradients" if target.parameter else "gradient of activations"
        made = self._make(target.shape, target.itemsize, part)
        self.events.append(Event(+1, made))
        self._release(grad)
        return made

    def _accumulate(self, target: Value, grad: int) -> None:
        if target.use in ("more", "last"):
            self._join(target)
        waits = target.use == "first"
        if target.adds or (target.parameter and self.accumulating and not waits):
            if self.tape.traced and not target.parameter:
                self._beside(target)
            self._release(grad)
            return
        held = self._grads.get(id(target))
        if held is None:
            self._grads[id(target)] = grad
            self._share(target, grad)
            return
        in_place = self._holders[held] == 1 and not self.tape.traced
        if not target.parameter and not in_place:
            total = self._make(target.shape, target.itemsize, "gradient of activations")
            self.events.append(Event(+1, total))
            self._grads[id(target)] = total
            self._release(held)
        self._release(grad)

    def _join(self, target: Value) -> None:
        """A shared parameter's gradient meets that of its uses before."""
        if self.tape.traced:
            self._beside(target)
        if target.use == "last":
            self.waiting = self._make(target.shape, target.itemsize, "gradients")
            if self.accumulating:
                # Their sum goes into `.grad`, and the gradient that waited for this one goes.
                self.events.append(Event(-1, self.waiting))

    def _beside(self, target: Value) -> None:
        """Fake tensors are added up in a third, which then stands for the one that was there."""
        total = self._make(target.shape, target.itemsize, "gradient of activations")
        self.events += [Event(+1, total), Event(-1, total)]

    def _share(self, value: Value, grad: int) -> None:
        """The gradient of what segments share has a name of its own among them."""
        name = self.tape.storages[value.storage].shared
        if value.use == "first":
            self.waiting = grad
        if name:
            self.made[grad - self._count].shared = f"gradient of {name}"

    def _make(self, shape: Shape, itemsize: int, part: str) -> int:
        self.made.append(Storage(shape, itemsize, part))
        storage = self._count + len(self.made) - 1
        self._holders[storage] = 1
        return storage

    def _release(self, storage: int) -> None:
        self._holders[storage] -= 1
        if self._holders[storage] == 0:
            self.events.append(Event(-1, storage))
