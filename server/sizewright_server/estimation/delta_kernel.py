"""The gated delta rule as one kernel: `chunk_gated_delta_rule` of flash-linear-attention.

Source: fla-core 0.6, ops/gated_delta_rule/chunk.py and what it calls in ops/common. Dimensions as
in `delta_shapes.py`.
"""

from __future__ import annotations

from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.delta_shapes import CHUNK, STATE, Cached, Heads
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Shape, Value

#: What of every head reads the state, what is written to it, and the states of every chunk.
W: Shape = ("B", "S", "LH", "LD")
U: Shape = ("B", "S", "LH", "LE")
STATES: Shape = ("B", "LC", "LH", "LD", "LE")


def fused_rule(ops: Ops, heads: Heads, *, grouped: bool, cached: Cached | None) -> Value:
    """flash-linear-attention's kernel: it norms queries and keys itself.

    Saved are the normed queries and keys with a reciprocal root each, the values, the decays added
    up in fp32, beta and the inverse of each chunk's system; states and new values are made again.
    """
    tape, width = ops.tape, heads.q.itemsize
    given = (heads.q, heads.k, heads.v, heads.decay, heads.beta)
    grad = any(value.needs_grad for value in given)
    # Views of the convolution's result are copied first (fla.utils.input_guard).
    rows = [tape.value(value.shape, width, needs_grad=False) for value in given[:3]]
    tape.record(given[:3], tuple(rows))
    normed = [tape.value(value.shape, width, needs_grad=False) for value in rows[:2]]
    rates = [tape.value((*value.shape[:-1], 1), FP32, needs_grad=False) for value in rows[:2]]
    tape.record(tuple(rows[:2]), (*normed, *rates))
    added = tape.value(heads.decay.shape, FP32, needs_grad=False)
    inverse = tape.value(("B", "S", "LH", CHUNK), width, needs_grad=False)
    tape.record((heads.decay,), (added, inverse))
    made = [tape.value(shape, width, needs_grad=False) for shape in (W, U, STATES, U)]
    for one in made:
        tape.record((inverse,), (one,))
    if cached is not None:
        last = tape.value(STATE, FP32, needs_grad=False)
        tape.record((inverse,), (last,))
        cached(last, [])
    out = tape.value(U, width, needs_grad=grad)

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            _fused_backward(run, heads, width, grouped=grouped)

    saves = (*normed, *rates, rows[2], added, heads.beta, inverse)
    # All of it has names until the function returns.
    names = (*given, *rows, *normed, *rates, added, inverse, *made)
    tape.record(names, (out,), saves=saves, backward=backward)
    return out


def _fused_backward(run: Backward, heads: Heads, width: int, *, grouped: bool) -> None:
    """`chunk_gated_delta_rule_bwd`: what has a name in it lives until it returns."""
    for shape in (W, U, STATES, U):
        run.new(shape, width)
    values = run.new(U, width)
    for shape in (STATES, U):
        run.new(shape, width)
    run.free(values)
    parts = [run.new(W, width), run.new(W, width)]
    run.new(W, width)
    if grouped:
        # Added up over the value heads that share a key.
        wide, parts = parts, [run.like(heads.q), run.like(heads.k)]
        for part in wide:
            run.free(part)
    keys = run.new(W, width)
    for value in (heads.v, heads.decay, heads.beta):
        run.give(value, run.like(value))
    if grouped:
        run.like(heads.k)
        run.free(keys)
    for value, part in zip((heads.q, heads.k), parts, strict=True):
        # Through the norm.
        run.give(value, run.like(value))
        run.free(part)
