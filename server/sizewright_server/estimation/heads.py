"""Lowers what stands around the blocks: embeddings before them, heads and losses after them."""

from __future__ import annotations

from sizewright_server.estimation.adapters import has_prompt, prompted
from sizewright_server.estimation.architecture import HeadStyle, Style
from sizewright_server.estimation.disentangled import lend_relative_embeddings
from sizewright_server.estimation.feedforward import activate
from sizewright_server.estimation.frame import close_frame, open_frame
from sizewright_server.estimation.losses import cross_entropy, token_loss
from sizewright_server.estimation.mode import WHOLE, Mode
from sizewright_server.estimation.norms import head_norm, norm
from sizewright_server.estimation.ops import BOOL, FP32, Ops
from sizewright_server.estimation.tape import Dim, Shape, Tape, Value
from sizewright_server.estimation.transformer import residual_itemsize


def lower_embedding(style: Style, head: HeadStyle, mode: Mode) -> Tape:
    """Token ids in, hidden states out: tables, their sum, and the norm and dropout after it."""
    tape = Tape(part="embedding")
    ops = Ops(tape, mode.types, training=mode.training)
    # What was shared with the head is in the head's place where that is not trained.
    alone = head.parted and not ops.types.trains("head")
    table = ops.weight(("V", "E"), module="embeddings", alone=alone)
    if head.shares_table:
        table.use = "last"
    if style.mask_buffer == "model":
        tape.buffers.append((("P", "P"), BOOL))
    out = embed(ops, style, mode, table)
    _unread_weights(ops, style)
    open_frame(tape, style, mode)
    if style.disentangled != "none":
        lend_relative_embeddings(ops, style)
    if style.position_bias == "mpnet":
        rows = ops.embedding(("S", "C"), ops.weight(("BUCKETS", "NH")), "NH")
        tape.lend("position bias", ops.reduce_copy(rows, ("B", "NH", "S", "C")))
    tape.finish(out)
    return tape


def _unread_weights(ops: Ops, style: Style) -> None:
    """Weights that lie beside the model and do not run. Linear layers of the tower's blocks, which
    it has as often as blocks, are quantised with the model's own."""
    blocks = max((count for count, _, columns in style.unread_weights if columns > 1), default=0)
    for count, rows, columns in style.unread_weights:
        weight = ops.tape.parameter((count, rows, columns), ops.types.weight, trainable=False)
        weight.unread = True
        if columns > 1 and count > 1 and blocks:
            weight.stored = ops.types.quantized


def embed(ops: Ops, style: Style, mode: Mode, table: Value) -> Value:
    """Looked-up tokens, with positions, types, norm, dropout and projection as the family has."""
    rows: Shape = ("B", "ST" if has_prompt(mode.types) else "S")
    out = prompted(ops, ops.embedding(rows, table, "E"), leaf=mode.checkpointed)
    if style.embedding_scale:
        out = ops.scale(out)
    if style.embedding_projection == "lookup":
        out = ops.linear(out, "H", ops.weight(("H", "E")))
    looked_up = [out]
    out = _typed_and_placed(ops, style, out, looked_up)
    if style.embedding_projection == "before-norm":
        out = ops.linear(out, "H", ops.weight(("H", "E")))
    if style.embedding_norm:
        out = norm(ops, style, out, (out.shape[-1],))
    if style.token_types:
        # BERT's embeddings module has a name for every part of the sum until it returns.
        ops.tape.hold(*looked_up)
    if mode.sequence_parallel:
        out = ops.reshard(out, (*mode.stream[:-1], out.shape[-1]))
    if style.disentangled != "none":
        # Embeddings of padding are multiplied by zero.
        out = ops.multiply(out, ops.tape.external(("B", "S", 1), out.itemsize))
    out = ops.dropout(out, float(mode.embedding_dropout))
    if style.embedding_projection == "after-norm":
        out = ops.linear(out, "H", ops.weight(("H", "E")), ops.weight(("H",)))
        out = ops.cast(out, residual_itemsize(style, mode))
    return out


def _typed_and_placed(ops: Ops, style: Style, out: Value, looked_up: list[Value]) -> Value:
    """Token types and learned positions added; `looked_up` takes the rows of both."""
    width = out.shape[-1]
    if style.token_types:
        looked_up.append(ops.embedding(("B", "S"), ops.weight(("T", width)), width))
        out = ops.add(out, looked_up[-1])
    if style.positions == "learned":
        looked_up.append(_positions(ops, style, width))
        out = ops.add(out, looked_up[-1])
    return out


def _positions(ops: Ops, style: Style, width: Dim) -> Value:
    """Rows of a table of positions: learned, fixed, or a buffer of sines in the weights' type."""
    rows: Shape = ("B" if style.positions_per_sample else "one", "S")
    if style.buffered_positions:
        ops.tape.buffers.append((("P", width), ops.types.weight))
        return ops.embedding(rows, ops.tape.external(("P", width), ops.types.weight), width)
    table = ops.weight(("P", width))
    if style.fixed_positions:
        table.needs_grad = False
    return ops.embedding(rows, table, width)


def lower_patch_embedding(style: Style, mode: Mode) -> Tape:
    """Pixels in, hidden states out: a convolution over patches, a class token, positions.

    Dimensions: G patches, SPECIAL tokens before them, S both; PIX values of a sample, PC a patch's.
    """
    tape = Tape(part="embedding")
    ops = Ops(tape, mode.types, training=mode.training)
    pixels = tape.external(("B", "PIX"), mode.types.weight)
    w, b = ops.weight(("H", "PC")), ops.weight(("H",))
    patches = ops.product(pixels, "H", w, b, shape=("B", "G", "H"))
    if style.mask_token:
        ops.weight(("H",))
    if style.class_token:
        special = ops.weight(("SPECIAL", "H"))
        patches = ops.concatenate((special, patches), ("B", "S", "H"))
    if style.positions == "learned":
        patches = ops.add(patches, ops.weight(("P", "H")))
    out = ops.dropout(patches, float(mode.embedding_dropout))
    out = ops.cast(out, residual_itemsize(style, mode))
    open_frame(tape, style, mode)
    tape.finish(out)
    return tape


def lower_mel_embedding(style: Style, mode: Mode) -> Tape:
    """Log-mel spectra in, hidden states out (Whisper): two convolutions, the second halving time.

    Dimensions: PIX values of a sample, PC values under the first kernel, S frames after the second.
    """
    tape = Tape(part="embedding")
    ops = Ops(tape, mode.types, training=mode.training)
    spectra = tape.external(("B", "PIX"), mode.types.weight)
    w, b = ops.weight(("H", "PC")), ops.weight(("H",))
    out = ops.product(spectra, "H", w, b, shape=("B", "S", 2, "H"))
    out = ops.unary(out)
    w, b = ops.weight(("H", "H", 3)), ops.weight(("H",))
    out = ops.unary(ops.product(out, "H", w, b, shape=("B", "S", "H")))
    table = ops.weight(("P", "H"))
    table.needs_grad = False
    summed = ops.add(out, ops.embedding(("S",), table, "H"))
    tape.hold(out)
    out = ops.dropout(summed, float(mode.embedding_dropout))
    tape.finish(ops.cast(out, residual_itemsize(style, mode)))
    return tape


def lower_head(style: Style, head: HeadStyle, mode: Mode, stack: str = "") -> Tape:
    """Hidden states in; logits and, in training, the loss out."""
    tape = Tape(part="head")
    ops = Ops(tape, mode.types, training=mode.training)
    tape.inputs_die = True
    x = tape.input(mode.stream, residual_itemsize(style, mode), needs_grad=mode.training)
    out = x
    if style.final_norm:
        with tape.within("norm"):
            out = norm(ops, style, out, ("H",))
    out = ops.dropout(out, float(mode.hidden_dropout and style.final_dropout))
    tape.hold(x)
    close_frame(tape, style, mode, stack)
    if style.keeps_states and not mode.training:
        tape.reclaim("states of every block", ("LAYERS", "B", "S", "H"), x.itemsize)
    if mode.sequence_parallel:
        out = ops.reshard(out, WHOLE)
    if head.kind == "none":
        tape.finish(_pool(ops, out) if head.pooler else out)
        return tape
    if not mode.training:
        answer = _logits(ops, style, head, out)
        tape.hold(out)
        tape.finish(answer)
        return tape
    if head.kind in ("causal-lm", "masked-lm", "seq2seq-lm"):
        hidden = _transformed(ops, style, head, out)
        loss, logits = token_loss(
            ops, mode, hidden, lambda x: _vocabulary(ops, style, head, x), upcast=head.upcast_logits
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
            if ops.types.autocast and logits.itemsize != FP32:
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
    if head.kind in ("sequence-classification", "image-classification"):
        return _labels(ops, style, head, x)
    return _vocabulary(ops, style, head, _transformed(ops, style, head, x))


def _transformed(ops: Ops, style: Style, head: HeadStyle, x: Value) -> Value:
    """The hidden states as the vocabulary's product reads them."""
    if head.transform:
        bias = ops.weight(("E",)) if head.transform_bias else None
        dense = ops.linear(x, "E", ops.weight(("E", "H")), bias)
        x = head_norm(ops, style, activate(ops, style, dense), ("E",))
    elif style.embedding_projection == "lookup":
        x = ops.linear(x, "E", ops.weight(("E", "H")))
    if head.scales_states:
        x = ops.scale(x)
    if style.residual_fp32:
        x = ops.cast(x, ops.types.weight)
    return x if ops.training else ops.slice(x, ("B", "KEPT", *x.shape[2:]))


def _vocabulary(ops: Ops, style: Style, head: HeadStyle, x: Value) -> Value:
    narrow = head.transform or style.embedding_projection == "lookup"
    bias = ops.weight(("V",), module="head") if head.bias else None
    width = "E" if narrow else "H"
    w = ops.weight(("VL", width), module="head", alone=head.parted)
    if (head.shares_table or head.owns_table) and ops.types.trains("embeddings"):
        w.use = "first"
    logits = ops.linear(x, "VL", w, bias, name="head")
    if head.logits_bias:
        ops.tape.buffers.append(((1, "VL"), ops.types.weight))
        logits = ops.add(logits, ops.tape.external((1, "VL"), ops.types.weight))
    if head.logits_scale:
        logits = ops.scale(logits)
    if head.float_logits:
        logits = ops.cast(logits, FP32)
    if head.logits_soft_cap:
        logits = ops.scale(ops.unary(ops.scale(logits), saves="output"))
    return logits


def _labels(ops: Ops, style: Style, head: HeadStyle, x: Value) -> Value:
    """Labels of a sample from its first token; decoders label every token and pick one."""
    bias = ops.weight(("L",), module="head") if head.bias else None
    if style.causal:
        every = ops.linear(x, "L", ops.weight(("L", "H"), module="head"), bias)
        return ops.slice(every, ("B", "L"))
    if head.teacher:
        ops.linear(ops.slice(x, ("B", "H")), "L", ops.weight(("L", "H"), module="head"), bias)
        bias = ops.weight(("L",), module="head")
    if head.both_tokens:
        # The class token, and the mean of the others, side by side (DINOv2).
        mean = ops.mean(ops.slice(x, x.shape), ("B", "H"))
        x = ops.concatenate((ops.slice(x, ("B", "H")), mean), ("B", 2, "H"))
        return ops.product(x, "L", ops.weight(("L", 2, "H"), module="head"), bias, shape=("B", "L"))
    if head.pooler or head.dense:
        x = _pool(ops, x)
    elif head.transform:
        bias_of = ops.weight(("H",)) if head.transform_bias else None
        dense = ops.linear(ops.slice(x, ("B", "H")), "H", ops.weight(("H", "H")), bias_of)
        x = head_norm(ops, style, activate(ops, style, dense), ("H",))
    else:
        x = ops.slice(x, ("B", "H"))
    return ops.linear(x, "L", ops.weight(("L", "H"), module="head"), bias)
