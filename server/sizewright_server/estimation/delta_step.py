"""One token through a gated delta net, which reads and writes the state that a prefill left.

`causal_conv1d_update` and `torch_recurrent_gated_delta_rule` of transformers 5.23, or the kernels
of the same names: causal-conv1d's writes in place, flash-linear-attention's gives a new state,
which is copied over the old one. Dimensions as in `delta_shapes.py`; CW1 inputs under the
convolution with the new one.
"""

from __future__ import annotations

from sizewright_server.estimation.delta_shapes import STATE, Heads
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Shape, Value


def convolved_once(ops: Ops, x: Value, *, fused: bool) -> Value:
    """The convolution of the latest inputs: the taps and the new one are put side by side."""
    tape = ops.tape
    ops.weight(("LQKV", "CW"))
    out = tape.value(x.shape, x.itemsize, needs_grad=False)
    if fused:
        tape.record((x,), (out,))
        return out
    under = tape.value(("B", "LQKV", "CW1"), x.itemsize, needs_grad=False)
    made = tape.value(("B", "LQKV", 2), x.itemsize, needs_grad=False)
    tape.record((x,), (under,))
    tape.record((under,), (made,))
    tape.record((made,), (out,))
    tape.hold(under)
    return out


def rule_once(ops: Ops, heads: Heads, *, fused: bool) -> tuple[Value, Value]:
    """What the token's heads give, and the state behind it."""
    tape, width = ops.tape, heads.q.itemsize
    shape: Shape = ("B", "S", "LH", "LE")
    last = tape.value(STATE, FP32, needs_grad=False)
    out = tape.value(shape, width, needs_grad=False)
    if fused:
        tape.record((heads.q, heads.k, heads.v), (last, out))
        return out, last
    # Decayed, then what is written to it, and their sum; then the sum times the query.
    faded, written, read = (tape.value(STATE, FP32, needs_grad=False) for _ in range(3))
    tape.record((heads.q, heads.k, heads.v), (faded, written))
    tape.record((faded, written), (last,))
    tape.record((last,), (read,))
    tape.record((read,), (out,))
    return out, last
