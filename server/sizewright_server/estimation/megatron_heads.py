"""Lowers what stands around Megatron Core's layers: embeddings, logits and the loss.

The vocabulary is padded and split over the tensor-parallel ranks (VP), and the loss is taken of the
shares (core/tensor_parallel/cross_entropy.py).
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import HeadStyle, Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.megatron import Layers
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import FP32, INT64
from sizewright_server.estimation.tape import Tape, Value


def lower_embedding(style: Style, mode: Mode) -> Tape:
    """Word, position and type tables, their sum in the layout of the layers, and dropout."""
    layers = Layers(style, mode, "embedding")
    embed(layers, layers.ops.weight(("VP", "E")))
    return layers.tape


def embed(layers: Layers, table: Value) -> None:
    """The rows of the tables, added up, put in the order of the layers, and dropped out."""
    ops, style, mode = layers.ops, layers.style, layers.mode
    out = ops.embedding(("B", "S"), table, "E")
    if style.positions == "learned":
        out = ops.add(out, ops.embedding(("one", "S"), ops.weight(("P", "E")), "E"))
    if style.token_types:
        out = ops.add(out, ops.embedding(("B", "S"), ops.weight(("T", "E")), "E"))
    out = ops.copy(out, mode.stream)
    if mode.hidden_dropout:
        out = ops.dropout(out, 1.0)
    layers.tape.finish(out)


def lower_head(style: Style, head: HeadStyle, mode: Mode) -> Tape:
    """Final norm, logits over the rank's share of the vocabulary, and the loss in place."""
    return lower_logits(Layers(style, mode, "head"), head, bias=head.bias)


def loss_of(layers: Layers, logits: Value) -> Value:
    """Softmax, loss and gradient share the fp32 copy of the logits.

    Transformer Engine's kernel writes the gradient into the logits themselves, and keeps three fp32
    numbers a token (pytorch/triton/cross_entropy.py).
    """
    tape = layers.tape
    if layers.mode.loss == "fused":
        return _loss_in_place(layers, logits)
    wide = layers.ops.cast(logits, FP32)
    labels = tape.value(("B", "S"), INT64, needs_grad=False)
    tape.record((logits, wide), (labels,))
    loss = tape.value((1,), FP32, needs_grad=True)

    def backward(run: Backward) -> None:
        if run.take(loss) is not None:
            run.give(wide, run.in_place_of(wide))

    saves = (wide, labels)
    layers.ops.tape.record(saves, (loss,), saves=saves, backward=backward)
    return loss


def _loss_in_place(layers: Layers, logits: Value) -> Value:
    """The gradient takes the logits' place: they are saved, and handed on as it."""
    tape = layers.tape
    rows = tape.value(("B", "S", 3), FP32, needs_grad=False)
    loss = tape.value((1,), FP32, needs_grad=True)

    def backward(run: Backward) -> None:
        if run.take(loss) is not None:
            run.give(logits, run.in_place_of(logits))

    tape.record((logits,), (rows, loss), saves=(logits,), backward=backward)
    return loss


def lower_logits(layers: Layers, head: HeadStyle, *, bias: bool) -> Tape:
    """Final norm, logits over the rank's share of the vocabulary, and the loss in place."""
    tape = layers.tape
    x = tape.input(layers.mode.stream, layers.width, needs_grad=True)
    with tape.within("norm"):
        out = layers.norm(x)
    if head.transform:
        dense = layers.column(out, "E", bias=True)
        out = layers.norm(layers.activate(dense, "E"))
    logits = layers.column(out, "VP", bias=bias)
    with tape.within("loss"):
        tape.finish(loss_of(layers, logits))
    return tape
