"""Rotary position embedding as the modelling code writes it."""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Dim, Value


def rotate_both(
    ops: Ops, style: Style, q: tuple[Value, Dim], k: tuple[Value, Dim], cos: Value, sin: Value
) -> tuple[Value, Value]:
    """Queries and keys, each with its heads, turned; those turned in fp32 are cast back last."""
    one, other = q[0], k[0]
    if style.rotary_fp32 == "before" and not style.fused_rope:
        one, other = ops.cast(one, FP32), ops.cast(other, FP32)
    turned = rotate(ops, style, one, q[1], cos, sin), rotate(ops, style, other, k[1], cos, sin)
    ops.tape.hold(one, other)
    if style.rotary_fp32 == "no" or style.fused_rope:
        return turned
    return ops.cast(turned[0], q[0].itemsize), ops.cast(turned[1], k[0].itemsize)


def rotate(ops: Ops, style: Style, x: Value, heads: Dim, cos: Value, sin: Value) -> Value:
    """x * cos + rotate_half(x) * sin, on the whole head or a slice of it.

    Interleaved pairs (GLM, GPT-J, Cohere) are stacked where halves are concatenated: the same
    tensors. `rotary_fp32` families turn an fp32 copy, and their result is fp32.
    """
    tape = ops.tape
    if style.fused_rope:
        if not style.kernels_in_place:
            return ops.unary(x, saves="none")
        # What is part of a joint product is copied first.
        return tape.view(x, x.shape) if style.qkv == "separate" else ops.copy(x)
    whole = (*x.shape[:-1], heads, "D")
    part = whole if style.rotary == "full" else (*x.shape[:-1], heads, "R")
    of_heads = tape.view(x, whole)
    turned = of_heads if style.rotary == "full" else ops.slice(of_heads, part)
    direct = ops.multiply(_wide(ops, style, turned), cos)
    halves = (*part[:-1], "RH")
    first, second = ops.slice(turned, halves), ops.slice(turned, halves)
    mirrored = ops.concatenate((ops.unary(second, saves="none"), first), part)
    out = ops.add(direct, ops.multiply(_wide(ops, style, mirrored), sin))
    if style.rotary != "full":
        out = ops.concatenate((out, ops.slice(of_heads, (*part[:-1], "RP"))), whole)
    return tape.view(out, x.shape)


def _wide(ops: Ops, style: Style, x: Value) -> Value:
    return ops.cast(x, FP32) if style.rotary_fp32 == "each" else x
