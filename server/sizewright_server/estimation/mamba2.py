"""Mamba-2's mixer as Nemotron-H runs it: a scan over heads, chunk by chunk.

In torch's own operators, as transformers 5.23 runs them where mamba-ssm is not installed, every
head has a matrix over each chunk's tokens (NemotronHMamba2Mixer, mamba2_chunk_scan); the kernels
are in `mamba2_kernels.py`. Dimensions: `recurrent.py`.
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.convolution import without_padding
from sizewright_server.estimation.feedforward import split
from sizewright_server.estimation.mamba2_kernels import chunk_kernel, split_kernel
from sizewright_server.estimation.mamba_layers import convolved, projected
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.recurrent_state import keep_last, one_step
from sizewright_server.estimation.tape import Dim, Shape, Value

#: One number for every two tokens of a chunk, for every head.
PAIRS: Shape = ("B", "MH", "MK", "ML", "ML")
#: A head's number for every token, the last chunk padded.
STEPS: Shape = ("B", "MH", "MLK")
CHANNELS: Shape = ("B", "MLK", "MI")
WEIGHTS: Shape = ("B", "MLK", "MH", "MN")
STATES: Shape = ("B", "MK", "MI", "MN")
#: With the state before the first chunk.
ALL_STATES: Shape = ("B", "MK1", "MI", "MN")
BETWEEN: Shape = ("B", "MH", "MK1", "MK1")


def mamba2_mixer(ops: Ops, style: Style, mode: Mode, x: Value, cached: list[Value]) -> Value:
    """The mixer over normed hidden states; `cached` takes what it keeps for later calls."""
    tape = ops.tape
    unmasked, x = x, without_padding(ops, mode, x)
    joint = projected(ops, x, "MP", "H", "in-proj", bias=style.mixer_bias)
    decay = ops.scale(ops.unary(ops.cast(ops.weight(("MH",)), FP32), saves="output"))
    if style.fused_recurrence and mode.training:
        out = split_kernel(ops, style, joint, decay)
        tape.hold(unmasked, x, joint)
        return out
    gate, mixed, step = split(tape, joint, ("MI", "MC", "MH"))
    conv = convolved(ops, style, mode, mixed, "MC", cached)
    tape.hold(x)
    if mode.one_query and mode.cache != "none":
        scanned, last = one_step(ops, conv, "MC")
        for _ in range(2):
            ops.weight(("MH",))
    elif style.fused_recurrence:
        scanned, last = chunk_kernel(ops, conv, step, decay)
    else:
        scanned, last = _scan(ops, mode, conv, step, decay)
    keep_last(ops, mode, last, cached)
    normed = _gated_norm(ops, scanned, gate)
    narrow = ops.cast(normed, x.itemsize)
    out = projected(ops, narrow, "H", "MI", "mixer-out", bias=style.mixer_bias)
    tape.hold(unmasked, joint, conv, scanned, normed, last)
    return out


def _scan(ops: Ops, mode: Mode, conv: Value, step: Value, decay: Value) -> tuple[Value, Value]:
    """mamba2_chunk_scan: within the chunks, and from chunk to chunk by their states; the last of
    which is a view of all."""
    tape = ops.tape
    states, b, c = split(tape, conv, ("MI", "MGN", "MGN"))
    steps = _steps(ops, step)
    wide = ops.cast(states, FP32)
    b, c = _every_head(ops, b), _every_head(ops, c)
    skipped = _padded(ops, wide, CHANNELS)
    skip = ops.multiply(skipped, ops.weight(("MH",)))
    moved = ops.multiply(wide, ops.cast(steps, FP32))
    decays = ops.multiply(ops.cast(steps, FP32), decay)
    x, a = _padded(ops, moved, CHANNELS), _padded(ops, decays, STEPS)
    b_rows, c_rows = _padded(ops, b, WEIGHTS), _padded(ops, c, WEIGHTS)
    tape.hold(moved, decays, b, c)
    passed = _cumulated(ops, a)
    within, names = _within_chunks(ops, x, a, b_rows, c_rows)
    between, more = _between_chunks(ops, x, passed, b_rows, c_rows)
    both = ops.add(within, between)
    whole = ops.copy(both)
    tape.hold(both)
    out = ops.add(whole, skip)
    tape.hold(whole)
    tape.hold(steps, x, a, b_rows, c_rows, passed, within, between, skip, *names, *more)
    rows: Shape = ("B", "S", "MI")
    cut = ops.slice(out, rows) if mode.ragged_chunks else tape.view(out, rows)
    return cut, more[-3]


def _steps(ops: Ops, step: Value) -> Value:
    """`clamp(softplus(dt + bias))` of every head; autocast runs softplus in fp32."""
    moved = ops.add(step, ops.cast(ops.weight(("MH",)), step.itemsize))
    if ops.types.autocast:
        moved = ops.cast(moved, FP32)
    return ops.unary(ops.unary(moved, saves="input"), saves="input")


def _every_head(ops: Ops, x: Value) -> Value:
    """A group's weights in fp32, repeated for each of its heads."""
    wide = ops.cast(x, FP32)
    return ops.reduce_copy(wide, ("B", "S", "MH", "MN"))


def _padded(ops: Ops, x: Value, shape: Shape) -> Value:
    """A copy up to whole chunks; its gradient comes in another order and is copied twice."""
    made = ops.reduce_copy(x, shape)
    return ops.expand(made, shape)


def _cumulated(ops: Ops, x: Value) -> Value:
    """`cumsum`, whose gradient is turned around twice."""
    return ops.unary(x, saves="none", scratch=2)


def _decays_of_pairs(ops: Ops, a: Value, shape: Shape) -> Value:
    """`exp(segment_sum(a))`: masked, summed and masked again over every pair."""
    first = ops.unary(ops.expand(a, shape), saves="none")
    summed = _cumulated(ops, first)
    masked = ops.unary(summed, saves="none")
    ops.tape.hold(first)
    return ops.unary(masked, saves="output")


def _einsum(ops: Ops, a: Value, b: Value, shape: Shape, *, copies: tuple[bool, bool]) -> Value:
    """A batched product of operands brought into its order by copies, as is its gradient."""
    first = ops.copy(a) if copies[0] else a
    second = ops.copy(b) if copies[1] else b
    return ops.matmul(first, second, shape)


def _reordered(ops: Ops, x: Value) -> Value:
    return ops.expand(x, x.shape)


def _within_chunks(
    ops: Ops, x: Value, a: Value, b: Value, c: Value
) -> tuple[Value, tuple[Value, ...]]:
    """What a chunk's tokens give each other, like attention in every head; and its names."""
    decays = _decays_of_pairs(ops, a, PAIRS)
    scores = _einsum(ops, c, b, PAIRS, copies=(True, True))
    mixed = ops.multiply(scores, decays)
    out = _reordered(ops, _einsum(ops, mixed, x, CHANNELS, copies=(False, True)))
    return out, (decays, scores, mixed)


def _between_chunks(
    ops: Ops, x: Value, passed: Value, b: Value, c: Value
) -> tuple[Value, tuple[Value, ...]]:
    """What the states before each chunk give, and names that last as long as the scan."""
    tape = ops.tape
    left = ops.unary(ops.scale(passed), saves="output")
    weights = ops.multiply(b, left)
    made = _reordered(ops, _einsum(ops, weights, x, STATES, copies=(True, True)))
    first = tape.value(("B", "MI", "MN"), made.itemsize, needs_grad=False)
    tape.record((), (first,))
    every = _behind(ops, first, made)
    last = ops.slice(passed, ("B", "MH", "MK"))
    decays = _decays_of_pairs(ops, ops.reduce_copy(last, ("B", "MH", "MK1")), BETWEEN)
    states = _reordered(ops, _einsum(ops, decays, every, ALL_STATES, copies=(False, True)))
    tape.hold(every)
    before = ops.slice(states, STATES)
    come = ops.unary(passed, saves="output")
    out = _reordered(ops, _einsum(ops, c, before, CHANNELS, copies=(True, True)))
    scaled = ops.multiply(out, come)
    return scaled, (left, weights, first, decays, states, out, come)


def _behind(ops: Ops, first: Value, x: Value) -> Value:
    """The states behind the one before all; the gradient is a view of theirs."""
    out = ops.tape.value(ALL_STATES, x.itemsize, needs_grad=x.needs_grad)

    def backward(run: Backward) -> None:
        grad = run.take(out)
        if grad is not None:
            run.give(x, grad)

    ops.tape.record((first, x), (out,), backward=backward)
    return out


def _gated_norm(ops: Ops, x: Value, gate: Value) -> Value:
    """NemotronHRMSNormGated: a root mean square norm of every group of gated channels."""
    scratch = 5 if ops.types.traced else 0
    wide = ops.cast(x, FP32)
    gated = ops.multiply(wide, ops.unary(ops.cast(gate, FP32), scratch=scratch))
    rows: Dim = "MG"
    variance = ops.mean(ops.power(gated), ("B", "S", rows))
    rate = ops.unary(ops.scale(variance), saves="output")
    scaled = ops.cast(ops.multiply(gated, rate), x.itemsize)
    return ops.multiply(scaled, ops.weight(("MI",), module="norms"))
