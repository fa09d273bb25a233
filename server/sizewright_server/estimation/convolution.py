"""Causal depthwise convolutions over the tokens of every channel, as recurrent layers have them.

With torch's operators it is `F.conv1d` padded on both sides, cut to the tokens, and an activation;
causal-conv1d (1.7, causal_conv1d_interface.py) is one kernel that saves its input alone.
"""

from __future__ import annotations

from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import BOOL, FP32, Ops
from sizewright_server.estimation.tape import Dim, Value


def causal_convolution(
    ops: Ops, x: Value, channels: Dim, taps: Dim, *, padded: Dim, bias: bool, fused: bool
) -> Value:
    """`silu(conv1d(x, groups=channels, padding=taps - 1)[..., :tokens])` in the type of x.

    `padded` names the tokens with the padding on one side, which the result's storage keeps; the
    weight has `taps` numbers a channel.
    """
    w = ops.weight((channels, taps))
    shift = ops.weight((channels,)) if bias else None
    if fused:
        return _kernel(ops, x, w, shift)
    # The weight is read through a view, of which autocast keeps no copy.
    kernel = ops.cast(w, ops.types.compute) if ops.types.autocast else w
    wide = ops.cast(x, w.itemsize)
    cut = ops.slice(_filtered(ops, wide, kernel, shift, padded), x.shape)
    scratch = 5 if ops.types.traced else 0
    return ops.cast(ops.unary(cut, saves="input", scratch=scratch), x.itemsize)


def without_padding(ops: Ops, mode: Mode, x: Value) -> Value:
    """Padding is multiplied by zeros, where there is any."""
    return ops.multiply(x, ops.tape.external(("B", "S", 1), BOOL)) if mode.padded else x


def _filtered(ops: Ops, x: Value, w: Value, shift: Value | None, padded: Dim) -> Value:
    """`conv1d`, which saves its input and its weight whichever of them takes a gradient."""
    x = ops.autocast_input(x)
    narrow = None if shift is None else ops.cast(shift, x.itemsize)
    read = (x, w) if narrow is None else (x, w, narrow)
    needs = any(value.needs_grad for value in read)
    out = ops.tape.value(("B", padded, x.shape[-1]), x.itemsize, needs_grad=needs)

    def backward(run: Backward) -> None:
        if run.take(out) is None:
            return
        for value in read:
            if value.needs_grad:
                run.give(value, run.like(value))

    ops.tape.record(read, (out,), saves=(x, w), backward=backward)
    return out


def _kernel(ops: Ops, x: Value, w: Value, shift: Value | None) -> Value:
    """Filter and activation in one; the gradients of the filters are added up in fp32."""
    trained = tuple(value for value in (w, shift) if value is not None and value.needs_grad)
    out = ops.tape.value(x.shape, x.itemsize, needs_grad=x.needs_grad or bool(trained))

    def backward(run: Backward) -> None:
        if run.take(out) is None:
            return
        run.give(x, run.like(x))
        for value in trained:
            run.new(value.shape, FP32)
            run.give(value, run.like(value))

    inputs = (x, w) if shift is None else (x, w, shift)
    ops.tape.record(inputs, (out,), saves=(x,), backward=backward)
    return out
