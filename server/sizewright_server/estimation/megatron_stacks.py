"""Lowers what joins the encoder and the decoder of Megatron Core's T5.

Both stacks look up one table; the encoder's states are kept for the decoder's cross-attention in
every layer (core/models/T5/t5_model.py).
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import HeadStyle, Style
from sizewright_server.estimation.megatron import Layers
from sizewright_server.estimation.megatron_heads import embed, lower_logits
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.tape import Tape
from sizewright_server.estimation.transformer import STATES


def lower_encoder_embedding(style: Style, mode: Mode) -> Tape:
    """The encoder's embedding, which owns the table."""
    layers = Layers(style, mode, "embedding")
    embed(layers, layers.ops.weight(("VP", "E")))
    return layers.tape


def lower_decoder_embedding(style: Style, mode: Mode) -> Tape:
    """The decoder's embedding, from the encoder's table."""
    layers = Layers(style, mode, "embedding")
    table = layers.ops.weight(("VP", "E"))
    layers.tape.parameters.remove(table)
    table.adds = True
    embed(layers, table)
    return layers.tape


def lower_encoder_end(style: Style, mode: Mode) -> Tape:
    """The encoder's final norm; its states stay until the decoder's backward pass is over."""
    layers = Layers(style, mode, "head")
    tape = layers.tape
    x = tape.input(mode.stream, layers.width, needs_grad=True)
    tape.inputs_die = True
    with tape.within("norm"):
        out = layers.norm(x)
    tape.hold(x)
    tape.lend(STATES, out)
    tape.release_in_backward(out)
    return tape


def lower_decoder_head(style: Style, head: HeadStyle, mode: Mode) -> Tape:
    """The decoder's final norm, tied logits with a bias, and the loss."""
    layers = Layers(style, mode, "head")
    return lower_logits(layers, head, bias=True)
