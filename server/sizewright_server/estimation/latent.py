"""Multi-head latent attention (DeepSeek V2 and V3) as transformers 5.23 runs it.

Keys and values are projected up from one compressed vector per token; the cache keeps the
compressed vector and the turned part of the key. Dimensions: QR rank of the queries, LR rank of
keys and values, LROT turned and LP unturned width of a head, QW all query heads, KVA compressed
vector and turned key, KVB keys and values of all heads, VA values of all heads.
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.feedforward import split
from sizewright_server.estimation.frame import PART
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.norms import norm
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Dim, Value


def queries(ops: Ops, style: Style, x: Value) -> tuple[Value, Value]:
    """Query heads, and what they are projected from: a low rank where the model has one."""
    if style.latent_queries:
        low = norm(ops, style, _linear(ops, style, x, "QR", name="q_a"), ("QR",))
        return ops.linear(low, "QW", ops.weight(("QW", "QR")), name="q_b"), low
    return ops.linear(x, "QW", ops.weight(("QW", "H")), name="q"), x


def compressed(ops: Ops, style: Style, x: Value) -> tuple[Value, Value, Value]:
    """The joint projection, the normed compressed vector, and the key part still to be turned."""
    joint = _linear(ops, style, x, "KVA", name="kv_a")
    low, turning = split(ops.tape, joint, ("LR", "LROT"))
    return joint, norm(ops, style, low, ("LR",)), turning


def turn(ops: Ops, style: Style, mode: Mode, x: Value, heads: Dim) -> Value:
    """Turns pairs: on an fp32 copy as complex numbers (V2), or half by half (V3)."""
    with ops.tape.within(PART):
        table = ops.tape.external(("one", "S", "LROT"), mode.types.weight)
    whole = ("B", "S", heads, "LROT")
    x = ops.tape.view(x, whole) if x.shape[2:] == (heads, "LROT") else ops.slice(x, whole)
    if style.rotary_fp32 != "no":
        wide = ops.cast(x, FP32)
        out = ops.cast(ops.multiply(wide, table), x.itemsize)
        ops.tape.hold(wide)
        return out
    half = ("B", "S", heads, "LROT2")
    first, second = ops.slice(x, half), ops.slice(x, half)
    low = ops.add(ops.multiply(first, table), ops.multiply(second, table))
    high = ops.add(ops.multiply(second, table), ops.multiply(first, table))
    return ops.concatenate((low, high), whole)


def expanded(ops: Ops, low: Value, turned: Value, keys: Dim) -> tuple[Value, Value]:
    """Keys, written into one new tensor, and values, views of the projection."""
    joint = ops.linear(low, "KVB", ops.weight(("KVB", "LR")), name="kv_b")
    plain, values = split(ops.tape, joint, ("KP", "VA"))
    grad = plain.needs_grad or turned.needs_grad
    key = ops.tape.value(("B", keys, "QW"), joint.itemsize, needs_grad=grad)

    def backward(run: Backward) -> None:
        if run.take(key) is None:
            return
        for value in (plain, turned):
            if value.needs_grad:
                run.give(value, run.like(value))

    ops.tape.record((plain, turned), (key,), backward=backward)
    return key, values


def _linear(ops: Ops, style: Style, x: Value, width: Dim, name: str) -> Value:
    bias = ops.weight((width,)) if style.qkv_bias else None
    return ops.linear(x, width, ops.weight((width, "H")), bias, name=name)
