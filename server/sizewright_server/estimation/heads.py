"""Lowers what stands around the blocks: embeddings before them, heads and losses after them."""

from __future__ import annotations

from sizewright_server.estimation.architecture import HeadStyle, Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.feedforward import activate
from sizewright_server.estimation.frame import close_frame, open_frame
from sizewright_server.estimation.mode import WHOLE, Mode
from sizewright_server.estimation.norms import norm
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Tape, Value
from sizewright_server.estimation.transformer import residual_itemsize


def lower_embedding(style: Style, mode: Mode) -> Tape:
    """Token ids in, hidden states out: tables, their sum, and the norm and dropout after it."""
    tape = Tape(part="embedding")
    ops = Ops(tape, mode.types, training=mode.training)
    out = ops.embedding(("B", "S"), ops.weight(("V", "E"), module="embeddings"), "E")
    if style.embedding_scale:
        out = ops.scale(out)
    if style.token_types:
        out = ops.add(out, ops.embedding(("B", "S"), ops.weight(("T", "E")), "E"))
    if style.positions == "learned":
        rows = ops.embedding(("one", "S"), ops.weight(("P", "E")), "E")
        out = ops.add(out, rows)
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
    logits = _logits(ops, style, head, out)
    tape.hold(out)
    if mode.training:
        with tape.within("loss"):
            loss = _cross_entropy(ops, head, logits)
        tape.hold(logits)
        tape.finish(loss, logits)
    else:
        tape.finish(logits)
    return tape


def _pool(ops: Ops, x: Value) -> Value:
    first = ops.slice(x, ("B", "H"))
    dense = ops.linear(first, "H", ops.weight(("H", "H")), ops.weight(("H",)))
    return ops.unary(dense, saves="output")


def _logits(ops: Ops, style: Style, head: HeadStyle, x: Value) -> Value:
    if head.kind == "sequence-classification":
        pooled = _pool(ops, x) if head.pooler else ops.slice(x, ("B", "H"))
        bias = ops.weight(("L",), module="head") if head.bias else None
        return ops.linear(pooled, "L", ops.weight(("L", "H"), module="head"), bias)
    if head.transform:
        dense = ops.linear(x, "E", ops.weight(("E", "H")), ops.weight(("E",)))
        x = norm(ops, style, activate(ops, style, dense), ("E",))
    kept = x if ops.training else ops.slice(x, ("B", "KEPT", *x.shape[2:]))
    bias = ops.weight(("V",), module="head") if head.bias else None
    w = ops.weight(("VL", "E" if head.transform else "H"), module="head")
    return ops.linear(kept, "VL", w, bias, name="head")


def _cross_entropy(ops: Ops, head: HeadStyle, logits: Value) -> Value:
    """`cross_entropy`: log-softmax keeps its result; backward makes two more of the same size.

    Under autocast log-softmax runs in the logits' type and `nll_loss` in fp32, on a cast.
    """
    if head.upcast_logits:
        logits = ops.cast(logits, FP32)
    likely = ops.softmax(logits, logits.itemsize)
    if ops.types.autocast:
        likely = ops.cast(likely, FP32)
    loss = ops.tape.value((1,), FP32, needs_grad=logits.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(loss) is not None:
            run.give(likely, run.like(likely))

    ops.tape.hold(logits)
    return ops.custom((likely,), loss, saves=(likely,), backward=backward)
