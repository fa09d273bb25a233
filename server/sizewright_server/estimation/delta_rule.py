"""The gated delta rule in chunks of 64 tokens, in torch's operators.

They are those of `torch_chunk_gated_delta_rule` (transformers 5.23, models/qwen3_next), which run
where flash-linear-attention is not installed: all in fp32, with a loop over the chunks. Dimensions
as in `delta_shapes.py`.
"""

from __future__ import annotations

from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.delta_scan import Chunks, scan
from sizewright_server.estimation.delta_shapes import (
    CHUNK,
    KEYS,
    SCALARS,
    SQUARES,
    VALUES,
    Cached,
    Heads,
)
from sizewright_server.estimation.ops import BOOL, FP32, Ops
from sizewright_server.estimation.tape import Value


def eager_rule(
    ops: Ops, heads: Heads, *, grouped: bool, strided: bool, cached: Cached | None
) -> Value:
    """Torch's operators. The result has the type of the queries.

    `cached` takes the last state. `strided`: queries and keys lie token by token in memory, so that
    every product copies them.
    """
    tape, narrow = ops.tape, heads.q.itemsize
    q, k, v, decay, beta = _widened(ops, heads, grouped=grouped)
    q, k = ops.scale(_l2_norm(ops, q)), _l2_norm(ops, k)
    padded = [ops.reduce_copy(x, shape) for x, shape in ((q, KEYS), (k, KEYS), (v, VALUES))]
    tape.hold(q, k, v)
    q, k, v = padded
    beta, decay = ops.reduce_copy(beta, SCALARS), ops.reduce_copy(decay, SCALARS)
    # Gradients from the solver are laid out column by column: views of chunks copy them.
    v_beta, k_beta = (ops.slice(ops.multiply(x, beta), x.shape) for x in (v, k))
    mask = tape.value((CHUNK, CHUNK), BOOL, needs_grad=False)
    tape.record((), (mask,))
    total = ops.unary(decay, saves="none", scratch=2)
    pairs = _pairwise(ops, total, mask)
    copied = ops.copy if strided else _as_it_is
    system = ops.multiply(ops.matmul(copied(k_beta), copied(k), SQUARES), pairs)
    local = ops.multiply(ops.matmul(copied(q), copied(k), SQUARES), pairs)
    decayed = ops.multiply(k_beta, _exp(ops, total))
    chunks = Chunks(
        _solved(ops, system, v_beta),
        _solved(ops, system, decayed),
        ops.multiply(q, _exp(ops, total)),
        ops.multiply(k, _exp(ops, total)),
        local,
        strided=strided,
    )
    mixed, last = scan(ops, chunks, cached)
    rows = ops.copy(mixed)
    tape.hold(mixed)
    out = ops.cast(ops.slice(rows, ("B", "S", "LH", "LE")), narrow)
    tape.hold(v, decay, beta, v_beta, k_beta, total, pairs, system, decayed, *chunks.all, *last)
    return out


def _as_it_is(x: Value) -> Value:
    return x


def _widened(ops: Ops, heads: Heads, *, grouped: bool) -> tuple[Value, ...]:
    """fp32 copies head by head, keys and queries repeated for every value head."""
    q, k = heads.q, heads.k
    if grouped:
        q, k = (ops.reduce_copy(x, ("B", "S", "LH", "LD")) for x in (q, k))
    wide = [ops.cast(x, FP32) for x in (q, k, heads.v, heads.beta)]
    ops.tape.hold(q, k)
    return wide[0], wide[1], wide[2], heads.decay, wide[3]


def _l2_norm(ops: Ops, x: Value) -> Value:
    """`x * rsqrt((x * x).sum(-1) + eps)`."""
    squares = ops.multiply(x, x)
    rate = ops.unary(_summed(ops, squares), saves="output", scratch=2)
    return ops.multiply(x, rate)


def _summed(ops: Ops, x: Value) -> Value:
    """A sum over the last dimension; its gradient is a view that repeats."""
    out = ops.tape.value((*x.shape[:-1], 1), x.itemsize, needs_grad=x.needs_grad)

    def backward(run: Backward) -> None:
        grad = run.take(out)
        if grad is not None:
            run.give(x, grad)

    ops.tape.record((x,), (out,), backward=backward)
    return out


def _exp(ops: Ops, x: Value) -> Value:
    return ops.unary(x, saves="output")


def _pairwise(ops: Ops, total: Value, mask: Value) -> Value:
    """`exp(total_i - total_j)` of every two tokens of a chunk, with the later ones masked."""
    tape = ops.tape
    apart = tape.value(SQUARES, FP32, needs_grad=total.needs_grad)

    def difference(run: Backward) -> None:
        if run.take(apart) is not None:
            run.like(apart)
            run.give(total, run.like(total))

    tape.record((total,), (apart,), backward=difference)
    masked = tape.value(SQUARES, FP32, needs_grad=apart.needs_grad)

    def fill(run: Backward) -> None:
        if run.take(masked) is not None:
            run.give(apart, run.like(apart))

    tape.record((apart, mask), (masked,), saves=(mask,), backward=fill)
    return _exp(ops, masked)


def _solved(ops: Ops, system: Value, right: Value) -> Value:
    """`linalg.solve_triangular`: saves the system and its result.

    Backward solves for the right side; the system's gradient is a product, its negative and that
    cut to a triangle.
    """
    grad = system.needs_grad or right.needs_grad
    out = ops.tape.value(right.shape, FP32, needs_grad=grad)

    def backward(run: Backward) -> None:
        if run.take(out) is None:
            return
        run.give(right, run.like(right))
        product = run.like(system)
        negative = run.like(system)
        run.free(product)
        run.give(system, run.like(system))
        run.free(negative)

    ops.tape.record((system, right), (out,), saves=(system, out), backward=backward)
    return out
