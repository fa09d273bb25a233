"""Norms as the modelling code writes them: fused layer norm, and root mean squares in Python."""

from __future__ import annotations

from dataclasses import replace

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Shape, Value


def norm(ops: Ops, style: Style, x: Value, width: Shape) -> Value:
    """The family's norm over the last dimension (or, per head, the last two)."""
    kind = style.norm
    if style.fused_norm and kind.startswith("rms"):
        # Gemma's are told to leave the gradient that they are given.
        in_place = style.kernels_in_place and kind != "rms-offset"
        return fused_rms_norm(ops, x, width, in_place=in_place)
    if kind == "layer":
        w = ops.weight(width, module="norms")
        return ops.layer_norm(x, w, ops.weight(width, module="norms") if style.norm_bias else None)
    if kind == "layer-plain":
        return ops.cast(ops.layer_norm(ops.cast(x, FP32), None, None), x.itemsize)
    if kind == "layer-offset":
        w = ops.scale(ops.weight(width, module="norms"))
        shift = ops.weight(width, module="norms") if style.norm_bias else None
        return ops.layer_norm(x, w, shift, promotes=False)
    if kind == "layer-python":
        return python_layer_norm(ops, x, width)
    if kind == "layer-by-hand":
        return layer_norm_by_hand(ops, x, width)
    if kind == "rms-promoting":
        return promoting_rms_norm(ops, x, width)
    return rms_norm(ops, x, width, kind)


def fused_rms_norm(ops: Ops, x: Value, width: Shape, *, in_place: bool = False) -> Value:
    """One kernel (Liger, Apex, Transformer Engine): saves its input and a reciprocal root a row.

    `in_place`: the input's gradient is written over the result's.
    """
    w = ops.weight(width, module="norms")
    out = ops.tape.value(x.shape, x.itemsize, needs_grad=x.needs_grad or w.needs_grad)
    rate = ops.tape.value(x.shape[:-1], FP32, needs_grad=False)

    def backward(run: Backward) -> None:
        grad = run.take(out)
        if grad is not None:
            for value in (x, w):
                if value.needs_grad:
                    run.give(value, grad if in_place and value is x else run.like(value))

    ops.tape.record((x, w), (out, rate), saves=(x, rate), backward=backward)
    return out


def rms_norm(ops: Ops, x: Value, width: Shape, kind: str) -> Value:
    """Root-mean-square norm: fp32 copy, square, mean, scale, weight.

    "rms" casts back before the weight, "rms-wide" (OLMo 2) after it; "rms-offset" (Gemma)
    multiplies by (1 + weight) in fp32 and casts last.
    """
    back = x.itemsize
    wide = ops.cast(x, FP32)
    scaled = ops.multiply(wide, _rate(ops, wide))
    w = ops.weight(width, module="norms")
    if kind == "rms-offset":
        ops.tape.hold(x)
        return ops.cast(ops.multiply(scaled, ops.scale(ops.cast(w, FP32))), back)
    if kind == "rms-wide":
        out = ops.multiply(scaled, w)
        ops.tape.hold(wide)
        return ops.cast(out, back)
    out = ops.multiply(ops.cast(scaled, back), w)
    ops.tape.hold(x, scaled)
    return out


def plain_rms_norm(ops: Ops, x: Value) -> Value:
    """Root-mean-square norm in fp32 without a weight."""
    wide = ops.cast(x, FP32)
    return ops.cast(ops.multiply(wide, _rate(ops, wide)), x.itemsize)


def promoting_rms_norm(ops: Ops, x: Value, width: Shape) -> Value:
    """T5's: only the variance is computed on an fp32 copy; the product is promoted to fp32."""
    rate = _rate(ops, ops.cast(x, FP32))
    scaled = ops.cast(ops.multiply(x, rate), ops.types.weight)
    ops.tape.hold(x)
    return ops.multiply(scaled, ops.weight(width, module="norms"))


def python_layer_norm(ops: Ops, x: Value, width: Shape) -> Value:
    """Cohere's layer norm without bias, written in Python in fp32; `x - mean` is computed twice."""
    wide = ops.cast(x, FP32)
    scaled, _ = _centred(ops, wide)
    ops.tape.hold(wide)
    weighted = ops.multiply(scaled, ops.cast(ops.weight(width, module="norms"), FP32))
    ops.tape.hold(scaled)
    return ops.cast(weighted, x.itemsize)


def layer_norm_by_hand(ops: Ops, x: Value, width: Shape) -> Value:
    """DeBERTa V1's layer norm: centred in fp32, cast back, then weight and bias."""
    centred, moments = _centred(ops, ops.cast(x, FP32))
    scaled = ops.cast(centred, x.itemsize)
    weighted = ops.multiply(scaled, ops.weight(width, module="norms"))
    out = ops.add(weighted, ops.weight(width, module="norms"))
    ops.tape.hold(x, scaled, *moments)
    return out


def head_norm(ops: Ops, style: Style, x: Value, width: Shape) -> Value:
    """The norm of a head's transform: torch's own where the blocks' is written by hand."""
    if style.norm == "layer-by-hand":
        style = replace(style, norm="layer")
    return norm(ops, style, x, width)


def _centred(ops: Ops, wide: Value) -> tuple[Value, tuple[Value, Value]]:
    """`(x - mean) / root of the variance` in fp32, and mean and variance; `x - mean` is made
    twice."""
    rows = (*wide.shape[:-1], 1)
    mean = ops.mean(wide, rows)
    variance = ops.mean(ops.power(ops.add(wide, mean)), rows)
    moved = ops.add(wide, mean)
    return ops.multiply(moved, _root(ops, variance)), (mean, variance)


def _rate(ops: Ops, wide: Value) -> Value:
    """The reciprocal root of the mean square, one per row."""
    return _root(ops, ops.mean(ops.power(wide), (*wide.shape[:-1], 1)))


def _root(ops: Ops, square: Value) -> Value:
    """The reciprocal root of a number for every row, kept above zero."""
    return ops.unary(ops.scale(square), saves="output")
