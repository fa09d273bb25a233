"""The lightning indexer of sparse attention (DeepSeek V3.2, GLM-5) as transformers 5.23 runs it.

A few small heads score every key for every query, and attention sees the best of them through a
mask (deepseek_v32 and glm_moe_dsa, modeling_*.py). The indexer runs without gradients: its own
parameters get none, and so no optimizer state. Its scores are there for all of its heads in fp32,
twice at a time: in most runs the highest moment of a block. Dimensions: IH heads of the indexer, ID
width of one, IQ all of them, IK keys that a query sees; MANY is the samples where there are several
of several tokens, else 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.frame import PART
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import BOOL, FP32, INT64, Ops
from sizewright_server.estimation.tape import Dim, Shape, Value

INT32 = 4
#: A score of every key for every query.
SQUARE: Shape = ("B", "S", "C")
CHOSEN: Shape = ("B", "S", "IK")


def chosen_dims(dims: Mapping[str, NDArray[np.int64]], most: int) -> dict[str, NDArray[np.int64]]:
    """Keys that an indexer chooses of those seen; and the samples where it copies keys for each
    query: a product of one sample, or of one query each, reads them as they are."""
    copied = (dims["B"] > 1) & (dims["S"] > 1)
    return {"IK": np.minimum(dims["C"], most), "MANY": np.where(copied, dims["B"], 0)}


def chosen_keys(
    ops: Ops,
    style: Style,
    mode: Mode,
    x: Value,
    low: Value,
    cached: Callable[[Value], Value],
) -> Value:
    """The numbers of the keys that every query sees, of the block's input and its low queries.

    `cached` gives all keys of the indexer for those of the new tokens.
    """
    tape = ops.tape
    with tape.within("indexer"), tape.without_gradients():
        x, low = _detached(x), _detached(low)
        queries, keys, named = _heads(ops, style, mode, x, low)
        scores = _scores(ops, queries, cached(keys))
        wide = ops.types.float16 and not (ops.types.traced or ops.types.autocast)
        # Loaded in fp16, the weights of the heads' shares stay fp32 (`_keep_in_fp32_modules`).
        read = ops.cast(x, FP32) if wide else x
        shares = ops.linear(read, "IH", ops.weight(("IH", "H")), name="weights_proj")
        shares = ops.scale(ops.cast(shares, FP32))
        total = ops.product_of(ops.autocast_input(shares), ops.autocast_input(scores), SQUARE)
        total = _causal(ops, mode, total)
        chosen = _best(ops, total)
        tape.hold(*named, queries, keys, scores, shares, total)
        return chosen


def _detached(value: Value) -> Value:
    return Value(value.storage, value.shape, value.itemsize, needs_grad=False)


def _heads(
    ops: Ops, style: Style, mode: Mode, x: Value, low: Value
) -> tuple[Value, Value, list[Value]]:
    """Turned queries of all heads, the one key of each token, and what both are made of."""
    q = ops.linear(low, "IQ", ops.weight(("IQ", "QR")), name="wq_b")
    k = ops.linear(x, "ID", ops.weight(("ID", "H")), name="wk")
    k = ops.layer_norm(k, ops.weight(("ID",)), ops.weight(("ID",)))
    turned = _turned(ops, style, mode, q, "IH"), _turned(ops, style, mode, k, 1)
    queries = ops.concatenate((turned[0], q), ("B", "S", "IQ"))
    keys = ops.concatenate((turned[1], k), ("B", "S", "ID"))
    return queries, keys, [q, k, *turned]


def _turned(ops: Ops, style: Style, mode: Mode, x: Value, heads: Dim) -> Value:
    """The turned part by halves (V3.2), or pair by pair as the model's own heads are (GLM-5)."""
    part: Shape = ("B", "S", heads, "LROT")
    half: Shape = ("B", "S", heads, "LROT2")
    with ops.tape.within(PART):
        table = ops.tape.external(("one", "S", "LROT"), mode.types.weight)
    turning = ops.slice(x, part)
    first, second = ops.slice(turning, half), ops.slice(turning, half)
    if style.indexer == "pairs":
        low = ops.add(ops.multiply(first, table), ops.multiply(second, table))
        high = ops.add(ops.multiply(second, table), ops.multiply(first, table))
        return ops.concatenate((low, high), part)
    direct = ops.multiply(turning, table)
    mirrored = ops.concatenate((ops.unary(second, saves="none"), first), part)
    return ops.add(direct, ops.multiply(mirrored, table))


def _scores(ops: Ops, queries: Value, keys: Value) -> Value:
    """Every head's, clipped at zero. Keys are copied for each query of several samples."""
    tape = ops.tape
    q = ops.autocast_input(ops.cast(queries, FP32))
    k = ops.autocast_input(ops.cast(keys, FP32))
    spread = tape.value(("MANY", "S", "ID", "C"), k.itemsize, needs_grad=False)
    product = tape.value(("B", "S", "IH", "C"), q.itemsize, needs_grad=False)
    tape.record((k,), (spread,))
    tape.record((q, k, spread), (product,))
    return ops.unary(ops.scale(product), saves="none")


def _causal(ops: Ops, mode: Mode, total: Value) -> Value:
    """Later tokens' scores are filled with minus infinity, or an additive mask is added."""
    tape = ops.tape
    if mode.attention == "eager":
        return ops.add(total, tape.external(SQUARE, mode.types.weight))
    inverse = tape.value(SQUARE, BOOL, needs_grad=False)
    tape.record((), (inverse,))
    filled = tape.value(SQUARE, total.itemsize, needs_grad=False)
    tape.record((total, inverse), (filled,))
    return filled


def _best(ops: Ops, total: Value) -> Value:
    """`topk`, its indices cast."""
    tape = ops.tape
    best = tape.value(CHOSEN, total.itemsize, needs_grad=False)
    index = tape.value(CHOSEN, INT64, needs_grad=False)
    tape.record((total,), (best, index))
    chosen = tape.value(CHOSEN, INT32, needs_grad=False)
    tape.record((index,), (chosen,))
    return chosen


def sparse_mask(ops: Ops, mode: Mode, chosen: Value) -> tuple[Value, Value]:
    """Which keys were left out, and attention's mask with them."""
    tape, whole = ops.tape, ("B", 1, "S", "C")
    with tape.within("attention mask"):
        ones, left_out = (tape.value(whole, BOOL, needs_grad=False) for _ in range(2))
        tape.record((), (ones,))
        index = tape.value(CHOSEN, INT64, needs_grad=False)
        tape.record((chosen,), (index,))
        tape.record((ones, index), (left_out,))
        eager = mode.attention == "eager"
        mask = tape.value(whole, mode.types.weight if eager else BOOL, needs_grad=False)
        inverse = () if eager else (tape.value(whole, BOOL, needs_grad=False),)
        tape.record((left_out,), inverse)
        tape.record((left_out, *inverse), (mask,))
        return left_out, mask
