"""Disentangled attention (DeBERTa) as transformers 5.23 runs it: three score matrices.

Content with content, content with position and position with content, each a (B, NH, S, S) matrix.
BUCKETS is the number of relative positions, both directions, SPAN those of them that the text has.
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.feedforward import split
from sizewright_server.estimation.frame import PART
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import BOOL, FP32, INT64, Ops
from sizewright_server.estimation.tape import Shape, Value

#: The name under which the embeddings of relative positions are lent to the blocks.
RELATIVE = "relative embeddings"
SQUARE: Shape = ("B", "NH", "S", "S")


def lend_relative_embeddings(ops: Ops, style: Style) -> None:
    """The table of relative positions, normed where the model norms it (V2)."""
    table = ops.weight(("BUCKETS", "H"))
    with ops.tape.within(PART):
        if style.disentangled == "joint":
            ops.tape.lend(RELATIVE, ops.tape.view(table, table.shape))
            return
        w, b = ops.weight(("H",), module="norms"), ops.weight(("H",), module="norms")
        ops.tape.lend(RELATIVE, ops.layer_norm(table, w, b))


def disentangled_attention(ops: Ops, style: Style, mode: Mode, x: Value) -> Value:
    """Mixed values of every head; the caller projects them."""
    tape = ops.tape
    if style.disentangled == "joint":
        return _jointly_projected(ops, style, mode, x)
    weights = [(ops.weight(("A", "H")), ops.weight(("A",))) for _ in range(3)]
    q, k, v = (
        ops.copy(ops.linear(x, "A", w, b, name=n)) for (w, b), n in zip(weights, "qkv", strict=True)
    )
    logits = ops.matmul(q, ops.scale(k), SQUARE)
    relative = _relative(ops, style, mode)
    keys = _positions(ops, style, relative, weights[1])
    places = _positions(ops, style, relative, weights[0])
    first = _gathered(ops, q, keys)
    score = ops.scale(ops.scale(first))
    second = _gathered(ops, k, places)
    score = ops.add_in_place(score, ops.scale(second))
    tape.hold(first, second)
    logits = ops.add(logits, score)
    filled = _masked(ops, logits)
    likely = _softmax(ops, filled)
    tape.hold(filled, score)
    likely = ops.dropout(likely, float(mode.attention_dropout))
    mixed = ops.matmul(likely, v, ("B", "S", "A"))
    out = ops.copy(mixed)
    tape.hold(q, k, v, relative)
    return out


def _jointly_projected(ops: Ops, style: Style, mode: Mode, x: Value) -> Value:
    """DeBERTa V1's: one product for queries, keys and values, biases for two of them.

    Batched products read copies, head by head; only the positions within the text's length count.
    """
    tape = ops.tape
    joint = ops.linear(x, "QKV", ops.weight(("QKV", "H")), name="qkv")
    q, k, v = split(tape, joint, ("A", "A", "A"))
    q = ops.scale(ops.add(q, ops.weight(("A",))))
    v = ops.add(v, ops.weight(("A",)))
    logits = ops.matmul(ops.copy(q), ops.copy(k), SQUARE)
    relative = _relative(ops, style, mode)
    near = ops.slice(relative, ("SPAN", "H"))
    keys = ops.linear(near, "A", ops.weight(("A", "H")))
    first = _gathered(ops, ops.copy(q), _for_every_sample(ops, keys, "SPAN"), "SPAN")
    score = ops.scale(first)
    places = ops.linear(near, "A", ops.weight(("A", "H")), ops.weight(("A",)))
    second = _gathered(ops, ops.copy(k), _for_every_sample(ops, places, "SPAN"), "SPAN")
    score = ops.add_in_place(score, second)
    tape.hold(keys, first, places, second)
    filled = _masked(ops, ops.add(logits, score), converted=True)
    likely = ops.dropout(_softmax(ops, filled), float(mode.attention_dropout))
    out = ops.copy(ops.matmul(likely, ops.copy(v), ("B", "S", "A")))
    tape.hold(joint, q, v, relative, score, filled)
    return out


def convolved(ops: Ops, style: Style, mode: Mode, x: Value, out: Value) -> Value:
    """The first block's result, and beside it a convolution over the tokens that went into it.

    Source: DebertaV2Encoder and ConvLayer of transformers 5.23.
    """
    tape = ops.tape
    with tape.within("mlp"):
        w, b = ops.weight(("H", "H", style.convolution)), ops.weight(("H",))
        turned = ops.copy(x)
        made = ops.product(turned, "H", w, b)
        local = ops.copy(made)
        local = ops.unary(ops.dropout(local, float(mode.hidden_dropout)))
        summed = ops.add(out, local)
        tape.hold(made, local, turned)
        scale, shift = ops.weight(("H",), module="norms"), ops.weight(("H",), module="norms")
        normed = ops.layer_norm(summed, scale, shift)
        # Padding is multiplied away.
        masked = ops.scale(normed)
        tape.hold(out, summed, normed)
    return masked


def _relative(ops: Ops, style: Style, mode: Mode) -> Value:
    """The lent embeddings, after a dropout of each block's own."""
    shape, width = ("BUCKETS", "H"), mode.types.weight
    with ops.tape.within(PART):
        if style.last and mode.training:
            lent = ops.tape.borrow_last(RELATIVE, shape, width)
        else:
            lent = ops.tape.borrow(RELATIVE, shape, width, needs_grad=mode.training)
    return ops.dropout(lent, float(mode.hidden_dropout))


def _positions(ops: Ops, style: Style, relative: Value, shared: tuple[Value, Value]) -> Value:
    """Positions projected, with the content's own weights or others, and repeated per sample."""
    w, b = shared
    if style.disentangled == "own":
        w, b = ops.weight(("A", "H")), ops.weight(("A",))
    return _for_every_sample(ops, ops.copy(ops.linear(relative, "A", w, b)), "BUCKETS")


def _for_every_sample(ops: Ops, projected: Value, count: str) -> Value:
    return ops.reduce_copy(projected, ("B", count, "A"))


def _gathered(ops: Ops, content: Value, places: Value, count: str = "BUCKETS") -> Value:
    """Scores against every relative position, and of them the one of each pair of tokens."""
    tape = ops.tape
    every = ops.matmul(content, places, ("B", "NH", "S", count))
    index = tape.value(("S", "S"), INT64, needs_grad=False)
    tape.record((), (index,))
    out = tape.value(SQUARE, every.itemsize, needs_grad=every.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            run.give(every, run.like(every))

    tape.record((every, index), (out,), saves=(every, index), backward=backward)
    tape.hold(every)
    return out


def _softmax(ops: Ops, scores: Value) -> Value:
    """Autocast runs it in fp32."""
    scores = ops.cast(scores, FP32) if ops.types.autocast else scores
    return ops.softmax(scores, scores.itemsize)


def _masked(ops: Ops, logits: Value, *, converted: bool = False) -> Value:
    """`masked_fill`: a new matrix; the inverted mask is made in every block and saved.

    `converted`: the mask has a boolean copy too, of which the caller keeps the name.
    """
    tape = ops.tape
    mask = tape.value(("B", 1, "S", "S"), BOOL, needs_grad=False)
    tape.record((), (mask,))
    if converted:
        copied = tape.value(mask.shape, BOOL, needs_grad=False)
        tape.record((), (copied,))
    out = tape.value(logits.shape, logits.itemsize, needs_grad=logits.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            run.give(logits, run.like(logits))

    tape.record((logits, mask), (out,), saves=(mask,), backward=backward)
    return out
