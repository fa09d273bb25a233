"""Layers that the mixers of Mamba and Mamba-2 have in common. Dimensions: `recurrent.py`."""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.convolution import causal_convolution, without_padding
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import Ops
from sizewright_server.estimation.recurrent_state import keep_taps
from sizewright_server.estimation.tape import Dim, Value


def convolved(
    ops: Ops, style: Style, mode: Mode, x: Value, channels: Dim, cached: list[Value]
) -> Value:
    """The causal convolution before the scan, whose latest inputs `cached` takes."""
    keep_taps(ops, mode, x, channels, cached)
    conv = causal_convolution(
        ops,
        x,
        channels,
        "MT",
        padded="MS",
        bias=style.convolution_bias,
        fused=style.fused_recurrence,
    )
    return without_padding(ops, mode, conv)


def projected(
    ops: Ops, x: Value, width: Dim, inner: Dim, name: str, *, bias: bool = False
) -> Value:
    """A linear layer called `name` from `inner` to `width`."""
    w = ops.weight((width, inner))
    shift = ops.weight((width,)) if bias else None
    return ops.linear(x, width, w, shift, name=name)
