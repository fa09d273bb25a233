"""The loop over the chunks of the gated delta rule, in torch's operators; dimensions as in
`delta_shapes.py`."""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.delta_shapes import CHUNK, STATE, VALUES, Cached
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Dim, Shape, Value


@dataclass(frozen=True, slots=True)
class Chunks:
    """What the loop over the chunks reads, every token of it."""

    new_values: Value
    k_decayed: Value
    q: Value
    k: Value
    local: Value
    #: Products copy their part of queries and keys.
    strided: bool = False

    @property
    def all(self) -> tuple[Value, ...]:
        """Every one."""
        return self.new_values, self.k_decayed, self.q, self.k, self.local


def scan(ops: Ops, chunks: Chunks, cached: Cached | None) -> tuple[Value, tuple[Value, ...]]:
    """The loop: each turn reads the state, writes its chunk of the result and makes a new state.

    The turn that is last to run is first in the backward pass, where the gradients of everything
    the loop reads come to be; nothing that later turns make lasts. So two turns are written out,
    and of the others there is what they save. Of a text of one chunk its state would be made of
    queries and keys that are counted here and that torch drops.

    `cached` takes the last state. Returned with the result are the last turn's names.
    """
    tape = ops.tape
    out = tape.value(VALUES, FP32, needs_grad=False)
    tape.record((), (out,))
    state, out = _turns_before(ops, chunks, out)
    v_new, out = _turn(ops, "BE", chunks, state, out)[:2]
    state = _next_state(ops, "BE", chunks, state, v_new)
    v_new, out, read = _turn(ops, "B", chunks, state, out)
    if cached is None:
        return out, (v_new, read)
    before = len(tape.ops)
    made = _next_state(ops, "B", chunks, state, v_new)
    cached(made, [storage for op in tape.ops[before:] for storage in op.saves])
    return out, (v_new, read, made)


def _turns_before(ops: Ops, chunks: Chunks, out: Value) -> tuple[Value, Value]:
    """All turns but the last two: what they save of their own, and of what they read."""
    tape = ops.tape
    grad = any(value.needs_grad for value in chunks.all)
    state = tape.value(("BE", *STATE[1:]), FP32, needs_grad=grad)
    after = Value(out.storage, out.shape, out.itemsize, grad)
    kept: list[Value] = []
    read: tuple[Value, ...] = ()
    if grad:
        rows, read = _saved_by_turns(ops, chunks)
        kept = [tape.value(shape, width, needs_grad=False) for shape, width in rows]
    for made in kept:
        tape.storages[made.storage].recorded = True

    def backward(run: Backward) -> None:
        run.take(state)
        run.take(after)

    tape.record((*chunks.all, out), (state, after, *kept), saves=(*kept, *read), backward=backward)
    return state, after


def _saved_by_turns(ops: Ops, chunks: Chunks) -> tuple[list[tuple[Shape, int]], tuple[Value, ...]]:
    """Shapes and widths of what turns make and save; what they save whole.

    The first turn's state is zeros without a gradient, so that what is multiplied with it is not
    saved: BQ leaves that turn out.
    """
    state, value, key, first = (
        ("BR", *STATE[1:]),
        ("BR", "LH", CHUNK, "LE"),
        ("BR", "LH", CHUNK, "LD"),
        ("BQ", "LH", CHUNK, "LD"),
    )
    if ops.types.autocast:
        # Products read 16-bit copies, each its own, and save those.
        half = ops.types.compute
        square = ("BR", "LH", CHUNK, CHUNK)
        narrow = (state, state, value, value, key, first, first, square)
        return [(state, FP32), *((shape, half) for shape in narrow)], ()
    if chunks.strided:
        rows = [(shape, FP32) for shape in (state, value, first, key)]
        return rows, (chunks.k_decayed, chunks.local)
    return [(state, FP32), (value, FP32)], chunks.all[1:]


def _turn(
    ops: Ops, batch: Dim, chunks: Chunks, state: Value, out: Value
) -> tuple[Value, Value, Value]:
    """New values less what the state knows of them; the result; what was read of the state."""
    values: Shape = (batch, "LH", CHUNK, "LE")
    known = ops.matmul(_chunk(ops, chunks.k_decayed, batch), state, values)
    v_new = _subtract(ops, _chunk(ops, chunks.new_values, batch), known)
    q = _chunk(ops, chunks.q, batch)
    read = ops.matmul(ops.copy(q) if chunks.strided else q, state, values)
    total = ops.add(read, ops.matmul(_chunk(ops, chunks.local, batch), v_new, values))
    return v_new, _written(ops, out, total, batch), read


def _chunk(ops: Ops, x: Value, batch: Dim) -> Value:
    """`x[:, :, i]`, of as many samples as take this turn: backward fills zeros of the whole."""
    out = Value(x.storage, (batch, "LH", CHUNK, x.shape[-1]), x.itemsize, x.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            whole = (batch, *x.shape[1:])
            run.give(x, run.new(whole, x.itemsize, "gradient of activations"))

    ops.tape.record((x,), (out,), backward=backward)
    return out


def _subtract(ops: Ops, a: Value, b: Value) -> Value:
    out = ops.tape.value(a.shape, a.itemsize, needs_grad=a.needs_grad or b.needs_grad)

    def backward(run: Backward) -> None:
        grad = run.take(out)
        if grad is not None:
            run.give(a, grad)
            run.give_as(b, out, run.like(out))

    ops.tape.record((a, b), (out,), backward=backward)
    return out


def _written(ops: Ops, out: Value, part: Value, batch: Dim) -> Value:
    """`out[:, :, i] = part`: backward copies the whole gradient, and its part from there."""
    after = Value(out.storage, out.shape, out.itemsize, out.needs_grad or part.needs_grad)
    shape = part.shape

    def backward(run: Backward) -> None:
        if run.take(after) is None:
            return
        whole = (batch, *out.shape[1:])
        run.give(out, run.new(whole, out.itemsize, "gradient of activations"))
        own = run.new(shape, FP32, "gradient of activations")
        zeros = run.new(shape, FP32)
        run.free(zeros)
        run.give_as(part, Value(after.storage, shape, FP32, needs_grad=True), own)

    ops.tape.record((out, part), (after,), backward=backward)
    return after


def _next_state(ops: Ops, batch: Dim, chunks: Chunks, state: Value, v_new: Value) -> Value:
    """`state * decay + k.T @ v_new`; there is a state, of zeros, even before the first chunk."""
    faded = ops.tape.value(state.shape, FP32, needs_grad=state.needs_grad)

    def fade(run: Backward) -> None:
        if run.take(faded) is not None:
            run.give(state, run.like(state))
            run.like(state)

    ops.tape.record((state,), (faded,), saves=(state,), backward=fade)
    k = _chunk(ops, chunks.k, batch)
    learnt = ops.matmul(ops.copy(k) if chunks.strided else k, v_new, state.shape)
    out = ops.tape.value(STATE, FP32, needs_grad=faded.needs_grad or learnt.needs_grad)

    def backward(run: Backward) -> None:
        grad = run.take(out)
        if grad is not None:
            run.give(faded, grad)
            run.give_as(learnt, out, grad) if learnt.itemsize != FP32 else run.give(learnt, grad)

    ops.tape.record((faded, learnt), (out,), backward=backward)
    return out
