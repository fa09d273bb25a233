"""Multi-latent attention as Megatron Core runs it (core/transformer/multi_latent_attention.py).

The projections down are whole on every tensor-parallel rank, over its own tokens; those up are
column-parallel, their norms fused into them. Queries and keys are put together of a plain and a
turned part, and are new tensors; values are copied out of the joint projection. Dimensions are
those of `latent.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.feedforward import split
from sizewright_server.estimation.tape import Dim, Value

if TYPE_CHECKING:
    from sizewright_server.estimation.megatron import Layers


def latent_attention(layers: Layers, x: Value) -> Value:
    """Self-attention over compressed keys and values, and queries where they are compressed."""
    start, query = layers.here, x
    if layers.style.latent_queries:
        query = layers.duplicated(x, "QR", name="q_down")
    low, turned = split(layers.tape, layers.duplicated(x, "KVA", name="kv_down"), ("LR", "LROT"))
    remade = layers.remade("mla_up_proj")
    if layers.style.latent_queries:
        query = layers.norm(query)
    q = _joined(layers, "QW", layers.column(query, "QW", bias=False, name="q_up"))
    joint = layers.column(layers.norm(low), "KVB", bias=False, name="kv_up")
    plain, values = split(layers.tape, joint, ("KP", "VA"))
    k, v = _joined(layers, "QW", plain, turned), _joined(layers, "VA", values)
    remade.stop()
    layers.moved(start)
    mixed = layers.core(q, k, v, "C", "VA")
    remade.close()
    start = layers.here
    out = layers.row(mixed, "VA", bias=layers.style.out_bias, name="proj")
    layers.moved(start)
    return out


def _joined(layers: Layers, width: Dim, *parts: Value) -> Value:
    """A new tensor of all heads, of the parts side by side."""
    out = layers.hidden(("B", "S", width))

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            for value in parts:
                run.give(value, run.like(value))

    layers.tape.record(parts, (out,), backward=backward)
    return out
