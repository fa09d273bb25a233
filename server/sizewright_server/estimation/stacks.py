"""Lowers what joins an encoder and a decoder: the encoder's end, the decoder's embedding.

The encoder's states are lent to every decoder block, which attends over them; their gradient is
made in the last block and added to in the others. T5 lends a bias by relative position from the
first block of each stack to the others.
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import HeadStyle, Style
from sizewright_server.estimation.frame import close_frame, open_frame
from sizewright_server.estimation.heads import embed, lower_head
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.norms import norm
from sizewright_server.estimation.ops import Ops
from sizewright_server.estimation.tape import Tape
from sizewright_server.estimation.transformer import STATES, residual_itemsize

#: Prefixes of the names of each stack's frame.
ENCODER, DECODER = "encoder ", "decoder "


def lower_encoder_embedding(style: Style, head: HeadStyle, mode: Mode) -> Tape:
    """The encoder's embedding; an untied table is the decoder's own, which looks it up later."""
    tape = Tape(part="embedding")
    ops = Ops(tape, mode.types, training=mode.training)
    table = ops.weight(("V", "E"))
    table.use = "last"
    if not head.tied:
        tape.parameters.remove(table)
        table.adds = True
    out = embed(ops, style, mode, table)
    open_frame(tape, style, mode, ENCODER)
    tape.finish(out)
    return tape


def lower_decoder_embedding(style: Style, head: HeadStyle, mode: Mode) -> Tape:
    """The decoder's embedding, from the table it shares with the encoder (and a tied head)."""
    tape = Tape(part="embedding")
    ops = Ops(tape, mode.types, training=mode.training)
    table = ops.weight(("V", "E"))
    table.use = "first"
    if head.tied or head.owns_table:
        table.use = "last" if head.owns_table else "more"
        tape.parameters.remove(table)
        table.adds = True
    out = embed(ops, style, mode, table)
    open_frame(tape, style, mode, DECODER)
    tape.finish(out)
    return tape


def lower_encoder_end(style: Style, _head: HeadStyle, mode: Mode) -> Tape:
    """Final norm and dropout of the encoder; its states stay for the decoder."""
    tape = Tape(part="head")
    ops = Ops(tape, mode.types, training=mode.training)
    x = tape.input(("B", "S", "H"), residual_itemsize(style, mode), needs_grad=mode.training)
    tape.inputs_die = True
    out = norm(ops, style, x, ("H",)) if style.final_norm else tape.view(x, x.shape)
    out = ops.dropout(out, float(mode.hidden_dropout and style.final_dropout))
    tape.hold(x)
    close_frame(tape, style, mode, ENCODER)
    tape.lend(STATES, out)
    if mode.training and mode.loop == "trainer":
        tape.release_in_backward(out)
    else:
        # The model's output, which has these states too, lives until the step is over.
        tape.storages[out.storage].stays = mode.training
    return tape


def lower_decoder_head(style: Style, head: HeadStyle, mode: Mode) -> Tape:
    """The head of the decoder, which closes the decoder's frame."""
    return lower_head(style, head, mode, DECODER)
