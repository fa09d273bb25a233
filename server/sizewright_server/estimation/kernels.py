"""Attention kernels: which one runs, and what it makes and saves.

Mirrors `integrations/sdpa_attention.py` of transformers 5.23 and the choice torch 2.13 makes on a
GPU of compute capability 8.0 or later (aten/native/transformers/cuda/sdp_utils.cpp): flash for 16
bit without a mask, memory-efficient where query and key/value heads are as many, else the plain
decomposition.
"""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import BOOL, FP32, Ops
from sizewright_server.estimation.tape import Dim, Shape, Value


@dataclass(frozen=True, slots=True)
class Scores:
    """What of an attention the kernel needs: dimensions of keys and mask, and what is added."""

    #: Keys seen: "C" for the own stack, "X" for the encoder's tokens.
    keys: Dim
    masked: bool
    causal: bool
    bias: Value | None = None
    #: Width of all value heads, and of one.
    mixed: Dim = "A"


def keeps_cache(style: Style, mode: Mode) -> bool:
    """Whether a training step makes copies of keys and values for a cache that nobody reads."""
    return mode.training and style.trains_with_cache and not mode.checkpointed


def runs_eager(style: Style, mode: Mode) -> bool:
    """Whether scores are matrices of their own: asked for, or the family has nothing better."""
    if mode.attention == "eager":
        return True
    flash = style.takes_flash and mode.attention.startswith("flash")
    return style.eager_only and not flash


def attend(
    ops: Ops, style: Style, mode: Mode, q: Value, k: Value, v: Value, scores: Scores
) -> tuple[Value, Value | None]:
    """The mixed values, and the attention probabilities where Python sees them."""
    if runs_eager(style, mode):
        return eager_attention(ops, style, mode, q, k, v, scores)
    if style.sinks:
        # FlashAttention-3 reads them as they are.
        ops.weight(("NH",))
    grouped = mode.grouped_queries and scores.keys != "X" and not style.repeats_first
    if grouped and style.broadcasts_heads:
        return broadcast_attention(ops, mode, q, k, v, scores), None
    mask: tuple[Value, ...] = ()
    if scores.masked or scores.bias is not None:
        mask = (_additive_mask(ops, q, scores, mode),)
        if grouped and not mode.one_query:
            repeat = ops.expand if mode.one_key_head else ops.copy
            k, v = (repeat(value, ("B", scores.keys, "A")) for value in (k, v))
            grouped = False
    half = (mode.types.compute if mode.types.autocast else q.itemsize) != FP32
    if grouped and not half and not mask:
        return plain_attention(ops, mode, q, k, v, scores), None
    out = ops.fused_attention(q, k, v, ("B", "S", scores.mixed), ("B", "NH", "S"), *mask)
    if style.heads_first and half and not mask and not mode.one_query:
        # Flash attention's result is laid out as the queries are, here head by head.
        out = ops.copy(out)
    return out, None


def _additive_mask(ops: Ops, q: Value, scores: Scores, mode: Mode) -> Value:
    """The mask in the queries' type, made of the boolean one in every call and saved."""
    itemsize = mode.types.compute if mode.types.autocast else q.itemsize
    with ops.tape.within("attention mask"):
        if scores.bias is None:
            mask = ops.tape.value(("B", 1, "S", scores.keys), itemsize, needs_grad=False)
            ops.tape.record((), (mask,))
            return mask
        if not (scores.masked or scores.causal or scores.bias.needs_grad):
            return scores.bias
        bias = ops.cast(scores.bias, itemsize)
        rows: Dim = "B" if scores.masked else "one"
        # `where` leaves the bias's order of dimensions, `contiguous` copies it once more.
        shape: Shape = (rows, "NH", "S", scores.keys)
        combined = ops.copy(bias, shape) if scores.masked or scores.causal else bias
        return ops.copy(combined, shape)


def plain_attention(ops: Ops, mode: Mode, q: Value, k: Value, v: Value, scores: Scores) -> Value:
    """torch's decomposition (aten/native/transformers/attention.cpp), with grouped queries.

    Queries and keys are scaled by the root of the scale each; keys and values are expanded to the
    query heads; the causal mask is made anew in every call.
    """
    tape = ops.tape
    scaled = ops.scale(q)
    with tape.within("attention mask"):
        mask = tape.value(("S", scores.keys), q.itemsize, needs_grad=False)
        flags = [tape.value(("S", scores.keys), BOOL, needs_grad=False) for _ in range(2)]
        tape.record((), tuple(flags))
        tape.record(tuple(flags), (mask,))
    whole_k = ops.reduce_copy(k, ("B", scores.keys, "A"))
    whole_v = ops.reduce_copy(v, ("B", scores.keys, "A"))
    keys = ops.scale(whole_k)
    rows = ops.copy(scaled)
    logits = ops.matmul(rows, keys, ("B", "NH", "S", scores.keys))
    logits = ops.add(logits, mask)
    probabilities = ops.softmax(logits, logits.itemsize)
    probabilities = ops.dropout(probabilities, float(mode.attention_dropout))
    mixed = ops.matmul(probabilities, whole_v, ("B", "NH", "S", "D"))
    tape.hold(scaled, whole_k, mask)
    return ops.copy(mixed, ("B", "S", "A"))


def broadcast_attention(
    ops: Ops, mode: Mode, q: Value, k: Value, v: Value, scores: Scores
) -> Value:
    """The decomposition with one key/value head broadcast (Falcon 7B), which no fused kernel takes.

    16-bit inputs are computed in fp32 (aten/native/transformers/attention.cpp), and the
    probabilities cast back beside the result.
    """
    tape, half = ops.tape, mode.types.compute
    if mode.types.autocast:
        q, k, v = (ops.cast(value, half) for value in (q, k, v))
    narrow = q.itemsize
    # Traced, autocast takes part inside the decomposition, which on a GPU it does not.
    wide = narrow if mode.types.traced and mode.types.autocast else FP32
    mask = _additive_mask(ops, q, scores, mode)
    wide_q, wide_k, wide_v = (ops.cast(value, wide) for value in (q, k, v))
    scaled_q, scaled_k = ops.scale(wide_q), ops.scale(wide_k)
    rows = ops.copy(scaled_q)
    keys = ops.reduce_copy(scaled_k, ("B", scores.keys, "A"))
    logits = ops.product_of(rows, keys, ("B", "NH", "S", scores.keys))
    likely = ops.softmax(ops.add(logits, mask), wide)
    answer = likely
    if wide != narrow:
        answer = tape.value(likely.shape, narrow, needs_grad=False)
        tape.record((likely,), (answer,))
    values = ops.reduce_copy(wide_v, ("B", scores.keys, "A"))
    mixed = ops.cast(ops.product_of(likely, values, ("B", "S", "A")), narrow)
    tape.hold(wide_q, wide_k, wide_v, scaled_q, answer, mask)
    return ops.copy(mixed)


def eager_attention(
    ops: Ops, style: Style, mode: Mode, q: Value, k: Value, v: Value, scores: Scores
) -> tuple[Value, Value]:
    """Scores, softmax and mixing as separate operators over a (B, NH, S, C) matrix."""
    tape = ops.tape
    square = ("B", "NH", "S", scores.keys)
    if mode.grouped_queries and scores.keys != "X" and not style.repeats_first:
        k, v = (ops.reduce_copy(value, ("B", "C", "A")) for value in (k, v))
    else:
        k = _head_by_head(ops, style, mode, k)
    width = q.itemsize
    if style.eager_fp32_scores:
        q, k = ops.cast(q, FP32), ops.cast(k, FP32)
    # A batched product wants its rows side by side, which heads taken out of a token are not.
    q = ops.contiguous(q)
    product = ops.matmul(q, k, square)
    # BLOOM scales as it multiplies (`baddbmm`), Falcon in place.
    logits = product if style.names_scores != "no" else ops.scale(product)
    logits = _masked_scores(ops, style, mode, logits, scores)
    if style.sinks:
        weights = _softmax_with_sinks(ops, logits, scores.keys)
    else:
        weights = _softmax(ops, style, mode, logits, width)
    if style.names_scores == "softmax":
        tape.hold(product)
    if style.eager_fp32_scores:
        # Scores, masked scores and probabilities have one name in turn (GPT-J, GPT-Neo).
        weights = ops.cast(weights, v.itemsize)
        tape.hold(q, k)
    else:
        tape.hold(logits)
    weights = ops.dropout(weights, float(mode.attention_dropout))
    if not mode.grouped_queries or scores.keys == "X":
        v = _head_by_head(ops, style, mode, v)
    mixed = ops.matmul(weights, v, ("B", "S", scores.mixed))
    out = ops.copy(mixed, ("B", "S", scores.mixed))
    if mode.grouped_queries:
        tape.hold(k, v)
    if style.names_scores == "whole":
        tape.hold(product, logits)
    if style.alibi_widens:
        tape.hold(logits)
    return out, weights


def _head_by_head(ops: Ops, style: Style, mode: Mode, x: Value) -> Value:
    """Keys or values as a batched product reads them: a copy, unless a cache has made it."""
    if keeps_cache(style, mode):
        return ops.autocast_input(x)
    return ops.contiguous(x)


def _masked_scores(ops: Ops, style: Style, mode: Mode, logits: Value, scores: Scores) -> Value:
    """Scaled scores with what the family caps and adds."""
    if style.score_soft_cap:
        logits = ops.scale(ops.unary(ops.scale(logits), saves="output"))
    if scores.bias is not None and style.position_bias == "mpnet":
        logits = ops.add_in_place(logits, scores.bias)
    elif scores.bias is not None:
        logits = ops.add(logits, scores.bias)
    if style.alibi_widens:
        logits = ops.add(logits, ops.tape.external((1, "NH", 1, scores.keys), FP32))
        return ops.unary(logits, saves="none")
    if scores.causal or scores.masked:
        rows: Dim = "B" if scores.masked else 1
        # Made in the weights' type: under autocast fp32, which the scores then are too.
        mask = ops.tape.external((rows, 1, "S", scores.keys), mode.types.weight)
        logits = ops.add(logits, mask)
    return logits


def _softmax_with_sinks(ops: Ops, logits: Value, keys: Dim) -> Value:
    """gpt-oss: one more score per head takes part in the softmax and is dropped after it."""
    sinks = ops.weight(("NH",))
    wide = ("B", "NH", "S", f"{keys}1")
    joined = ops.concatenate((logits, sinks), wide)
    centred = ops.scale(joined)
    ops.tape.hold(joined)
    likely = ops.softmax(centred, centred.itemsize)
    ops.tape.hold(logits)
    out = ops.slice(likely, logits.shape)
    ops.tape.hold(centred)
    return out


def _softmax(ops: Ops, style: Style, mode: Mode, logits: Value, width: int) -> Value:
    """Softmax in fp32 where the family or autocast asks for it.

    Only fp16 has a kernel that reads 16 bit and writes fp32; bf16 is copied to fp32 first
    (aten/native/SoftMax.cpp).
    """
    wide = style.softmax_fp32 or mode.types.autocast
    if not wide:
        return ops.softmax(logits, logits.itemsize)
    if not mode.types.float16:
        logits = ops.cast(logits, FP32)
    weights = ops.softmax(logits, FP32)
    return ops.cast(weights, width) if style.softmax_fp32 else weights
