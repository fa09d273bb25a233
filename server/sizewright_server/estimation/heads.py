"""Lowers what stands around the blocks: embeddings before them, heads and losses after them."""

from __future__ import annotations

from sizewright_server.estimation.adapters import has_prompt, prompted
from sizewright_server.estimation.architecture import HeadStyle, Style
from sizewright_server.estimation.feedforward import activate
from sizewright_server.estimation.frame import close_frame, open_frame
from sizewright_server.estimation.losses import cross_entropy, token_loss
from sizewright_server.estimation.mode import WHOLE, Mode
from sizewright_server.estimation.norms import norm
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Shape, Tape, Value
from sizewright_server.estimation.transformer import residual_itemsize


def lower_embedding(style: Style, mode: Mode) -> Tape:
    """Token ids in, hidden states out: tables, their sum, and the norm and dropout after it."""
    tape = Tape(part="embedding")
    ops = Ops(tape, mode.types, training=mode.training)
    rows: Shape = ("B", "ST" if has_prompt(mode.types) else "S")
    out = ops.embedding(rows, ops.weight(("V", "E"), module="embeddings"), "E")
    out = prompted(ops, out)
    if style.embedding_scale:
        out = ops.scale(out)
    if style.token_types:
        out = ops.add(out, ops.embedding(("B", "S"), ops.weight(("T", "E")), "E"))
    if style.positions == "learned":
        places = ops.embedding(("one", "S"), ops.weight(("P", "E")), "E")
        out = ops.add(out, places)
    if style.embedding_norm:
        out = norm(ops, style, out, ("E",))
    if mode.sequence_parallel:
        out = ops.reshard(out, (*mode.stream[:-1], "E"))
    out = ops.dropout(out, float(mode.embedding_dropout))
    open_frame(tape, style, mode)
    tape.finish(out)
    return tape


def lower_head(style: Style, head: HeadStyle, mode: Mode) -> Tape:
    """Hidden states in; logits and, in training, the loss out."""
    tape = Tape(part="head")
    ops = Ops(tape, mode.types, training=mode.training)
    x = tape.input(mode.stream, residual_itemsize(style, mode), needs_grad=mode.training)
    out = x
    if style.final_norm:
        with tape.within("norm"):
            out = norm(ops, style, out, ("H",))
    tape.hold(x)
    close_frame(tape, style, mode)
    if mode.sequence_parallel:
        out = ops.reshard(out, WHOLE)
    if head.kind == "none":
        tape.finish(_pool(ops, out) if head.pooler else out)
        return tape
    if not mode.training:
        tape.finish(_logits(ops, style, head, out))
        return tape
    if head.kind in ("causal-lm", "masked-lm"):
        hidden = _transformed(ops, style, head, out)
        loss, logits = token_loss(
            ops, mode, hidden, lambda x: _vocabulary(ops, head, x), upcast=head.upcast_logits
        )
        tape.hold(out)
    else:
        logits = _logits(ops, style, head, out)
        tape.hold(out)
        with tape.within("loss"):
            loss = cross_entropy(ops, logits, upcast=head.upcast_logits)
    _hand_over(ops, mode, loss, logits)
    return tape


def _hand_over(ops: Ops, mode: Mode, loss: Value, logits: Value | None) -> None:
    """What the training loop keeps: the whole output, or the loss alone.

    transformers' Trainer drops the output before the backward pass; under autocast Accelerate has
    converted its logits to fp32.
    """
    tape = ops.tape
    if logits is None or mode.loop == "trainer":
        if logits is not None:
            if ops.types.autocast:
                wide = tape.value(logits.shape, FP32, needs_grad=False)
                tape.record((logits,), (wide,))
            tape.hold(logits)
        tape.finish(loss)
        return
    tape.hold(logits)
    tape.finish(loss, logits)


def _pool(ops: Ops, x: Value) -> Value:
    first = ops.slice(x, ("B", "H"))
    dense = ops.linear(first, "H", ops.weight(("H", "H")), ops.weight(("H",)))
    return ops.unary(dense, saves="output")


def _logits(ops: Ops, style: Style, head: HeadStyle, x: Value) -> Value:
    if head.kind == "sequence-classification":
        pooled = _pool(ops, x) if head.pooler else ops.slice(x, ("B", "H"))
        bias = ops.weight(("L",), module="head") if head.bias else None
        return ops.linear(pooled, "L", ops.weight(("L", "H"), module="head"), bias)
    return _vocabulary(ops, head, _transformed(ops, style, head, x))


def _transformed(ops: Ops, style: Style, head: HeadStyle, x: Value) -> Value:
    """The hidden states as the vocabulary's product reads them."""
    if head.transform:
        dense = ops.linear(x, "E", ops.weight(("E", "H")), ops.weight(("E",)))
        x = norm(ops, style, activate(ops, style, dense), ("E",))
    return x if ops.training else ops.slice(x, ("B", "KEPT", *x.shape[2:]))


def _vocabulary(ops: Ops, head: HeadStyle, x: Value) -> Value:
    bias = ops.weight(("V",), module="head") if head.bias else None
    w = ops.weight(("VL", "E" if head.transform else "H"), module="head")
    return ops.linear(x, "VL", w, bias, name="head")
