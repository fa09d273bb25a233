"""Causal depthwise convolutions over the tokens of every channel, as recurrent layers have them."""

from __future__ import annotations

from sizewright_server.estimation.ops import Ops
from sizewright_server.estimation.tape import Dim, Value


def causal_convolution(
    ops: Ops, x: Value, channels: Dim, taps: Dim, *, padded: Dim, bias: bool
) -> Value:
    """`silu(conv1d(x, groups=channels, padding=taps - 1)[..., :tokens])` in torch's own operators.

    `padded` names the tokens with the padding on one side, which the result's storage keeps; the
    weight has `taps` numbers a channel.
    """
    w = ops.weight((channels, taps))
    shift = ops.weight((channels,)) if bias else None
    whole = ops.product(ops.cast(x, w.itemsize), channels, w, shift, shape=("B", padded, channels))
    scratch = 5 if ops.types.traced else 0
    return ops.unary(ops.slice(whole, x.shape), scratch=scratch)
