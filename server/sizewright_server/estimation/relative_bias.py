"""T5's biases by relative position: numbers of rows, then the rows, made by the first block.

Source: transformers models/t5/modeling_t5.py, `compute_bias` and `_relative_position_bucket`.
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.frame import PART
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import BOOL, FP32, INT64, Ops
from sizewright_server.estimation.tape import Shape, Value

PAIRS: Shape = ("S", "C")


def own_bias(ops: Ops, style: Style, mode: Mode) -> Value | None:
    """The bias of a stack's own attention: made by the first block, lent to the others."""
    shape: Shape = ("one", "NH", "S", "C")
    if style.position_bias == "none":
        return None
    name = f"{'decoder' if style.causal else 'encoder'} position bias"
    if style.position_bias == "mpnet":
        name, shape = "position bias", ("B", "NH", "S", "C")
    elif style.first:
        table = ops.weight(("BUCKETS", "NH"))
        with ops.tape.within(PART):
            bias = ops.tape.view(_rows(ops, table, both_ways=not style.causal), shape)
            ops.tape.lend(name, bias)
        return bias
    width = mode.types.weight
    if style.last and mode.training:
        return ops.tape.borrow_last(name, shape, width)
    return ops.tape.borrow(name, shape, width, needs_grad=mode.training)


def cross_bias(ops: Ops, style: Style, mode: Mode) -> Value | None:
    """T5 adds zeros where cross attention has no bias: made once, lent to the other blocks."""
    if style.position_bias == "none":
        return None
    shape, width = ("one", "NH", "S", "X"), mode.types.compute
    if not style.first:
        return ops.tape.borrow("decoder cross bias", shape, width)
    with ops.tape.within(PART):
        zeros = ops.tape.value(shape, width, needs_grad=False)
        ops.tape.record((), (zeros,))
        ops.tape.lend("decoder cross bias", zeros)
    return zeros


def _rows(ops: Ops, table: Value, *, both_ways: bool) -> Value:
    """A row of the table for every pair of tokens; their numbers are saved for its gradient."""
    positions = _made(ops, INT64)
    numbers = _buckets(ops, positions, both_ways=both_ways)
    rows = ops.embedding(PAIRS, table, "NH", index=numbers)
    ops.tape.hold(positions)
    return rows


def _buckets(ops: Ops, positions: Value, *, both_ways: bool) -> Value:
    """Near positions have a row each, farther ones share rows by their logarithm."""
    if both_ways:
        ahead = _made(ops, INT64, _made(ops, BOOL, positions))
        buckets = _made(ops, INT64, _made(ops, INT64, ahead))
        distance = _made(ops, INT64, positions)
    else:
        distance = _made(ops, INT64, _made(ops, INT64, positions, _made(ops, INT64)))
        buckets = positions
    small = _made(ops, BOOL, distance)
    scaled = _made(ops, FP32, _made(ops, FP32, distance))
    for _ in range(3):
        scaled = _made(ops, FP32, scaled)
    far = _made(ops, INT64, _made(ops, INT64, scaled))
    far = _made(ops, INT64, far, _made(ops, INT64))
    chosen = _made(ops, INT64, small, distance, far)
    ops.tape.hold(small, distance, far)
    if both_ways:
        ops.tape.hold(chosen)
        return buckets
    return _made(ops, INT64, chosen)


def _made(ops: Ops, itemsize: int, *of: Value) -> Value:
    """One number for every pair of tokens, made of others."""
    out = ops.tape.value(PAIRS, itemsize, needs_grad=False)
    ops.tape.record(of, (out,))
    return out
