"""Lowers a layer of Megatron Core: which modules stand in it, and which of them run again."""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.megatron import Layers
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.tape import Tape, Value
from sizewright_server.estimation.transformer import STATES


def lower_block(style: Style, mode: Mode) -> Tape:
    """One layer on a tape of its own."""
    layers = Layers(style, mode, "block")
    x = layers.tape.input(mode.stream, layers.width, needs_grad=True)
    layers.tape.finish(layer(layers, x))
    return layers.tape


def layer(layers: Layers, x: Value) -> Value:
    """Norm, attention, sum (twice in a decoder of two stacks); norm, MLP, sum."""
    tape, style = layers.tape, layers.style
    middle = _summed(layers, _attention(layers, x), x)
    if style.cross_attention:
        shape = ("B", "X", "H")
        if style.last:
            memory = tape.borrow_last(STATES, shape, layers.width)
        else:
            memory = tape.borrow(STATES, shape, layers.width, needs_grad=True)
        middle = _summed(layers, _attention(layers, middle, memory), middle)
    return _summed(layers, _feed_forward(layers, middle), middle)


def _attention(layers: Layers, x: Value, memory: Value | None = None) -> Value:
    """Norm and attention. A norm of its own may be made again when attention's backward begins."""
    separate = layers.style.latent or layers.mode.separate_norms
    remade, start = layers.remade("layernorm", of=separate), layers.here
    with layers.tape.within("norm"):
        normed = layers.norm(x)
    remade.stop()
    stop = layers.here
    out = layers.attention(normed, memory)
    layers.moved(start, stop + remade.close())
    return out


def _feed_forward(layers: Layers, x: Value) -> Value:
    """Norm and feed-forward, or experts. A whole module is made again from what it is given: for a
    dense layer of Transformer Engine that is the norm's input."""
    sparse = layers.style.experts
    separate = sparse or layers.mode.separate_norms
    start = layers.here
    fused = layers.remade("mlp", of=not separate)
    remade = layers.remade("layernorm", of=separate)
    with layers.tape.within("norm"):
        normed = layers.norm(x)
    remade.stop()
    stop = layers.here
    module = layers.remade("moe" if sparse else "mlp", of=separate)
    out = layers.feed_forward(normed)
    for region in (module, fused):
        region.stop()
        stop += region.close() * (region is fused)
    layers.moved(start, stop + remade.close())
    return out


def _summed(layers: Layers, x: Value, residual: Value) -> Value:
    with layers.tape.within("residual"):
        return layers.dropout_add(x, residual)
