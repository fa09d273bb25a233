"""Losses over a vocabulary, by the kernel that computes them: what each makes, keeps and frees.

n is the number of logits, w their bytes. transformers' own upcasts them: 14n at the peak where w is
2; torch.compile's takes 4n (traced on PyTorch 2.13: it saves the logits and two fp32 numbers a
token). Sources: transformers loss/loss_utils.py; litgpt utils.py chunked_cross_entropy, torchtune's
CEWithChunkedOutputLoss (logits by chunks, each with its own cross entropy); Liger-Kernel
ops/fused_linear_cross_entropy.py and cross_entropy.py; apple/ml-cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Shape, Value

#: Makes the logits of hidden states.
Vocabulary: TypeAlias = Callable[[Value], Value]


def token_loss(
    ops: Ops, mode: Mode, hidden: Value, vocabulary: Vocabulary, *, upcast: bool
) -> tuple[Value, Value | None]:
    """The loss, and the logits where the training loop sees them."""
    kernel = mode.loss
    if kernel in ("fused-linear", "cut"):
        return _without_logits(ops, hidden, vocabulary, cut=kernel == "cut"), None
    if kernel == "tiled":
        return _by_tiles(ops, hidden, vocabulary), None
    logits = vocabulary(hidden)
    ops.tape.hold(hidden)
    with ops.tape.within("loss"):
        if kernel == "chunked":
            return _by_chunks(ops, mode, logits)
        if kernel in ("fused", "fused-fp32", "compiled"):
            # transformers converts the logits before it calls Liger's cross entropy.
            read = ops.cast(logits, FP32) if kernel == "fused-fp32" else logits
            loss = _fused(ops, read, in_place=kernel != "compiled", held=read is logits)
            return loss, logits
        if kernel == "shifted":
            # The model's output is of the converted logits; the loss reads a copy without the last.
            logits = ops.cast(logits, FP32) if upcast else logits
            moved = ops.copy(ops.slice(logits, logits.shape))
            loss = cross_entropy(ops, moved, upcast=False)
            ops.tape.hold(logits)
            return loss, logits
        loss = cross_entropy(ops, logits, upcast=upcast and kernel != "native")
    ops.tape.hold(logits)
    return loss, logits


def cross_entropy(ops: Ops, logits: Value, *, upcast: bool) -> Value:
    """`cross_entropy`: log-softmax keeps its result; backward makes two more of the same size.

    Under autocast log-softmax runs in the logits' type and `nll_loss` in fp32, on a cast.
    """
    if upcast:
        logits = ops.cast(logits, FP32)
    likely = ops.softmax(logits, logits.itemsize)
    if ops.types.autocast:
        likely = ops.cast(likely, FP32)
    loss = ops.tape.value((1,), FP32, needs_grad=logits.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(loss) is not None:
            run.give(likely, run.like(likely))

    ops.tape.hold(logits)
    ops.tape.record((likely,), (loss,), saves=(likely,), backward=backward)
    return loss


def _by_chunks(ops: Ops, mode: Mode, logits: Value) -> tuple[Value, Value]:
    """Log-probabilities of every chunk are saved; backward makes the gradients of one at a time.

    Lightning Fabric converts what the model returns to fp32 before the loss is taken.
    """
    tape, held = ops.tape, logits
    if mode.loop == "fabric" and logits.itemsize != FP32:
        held = tape.value(logits.shape, FP32, needs_grad=False)
        tape.record((logits,), (held,))
    likely = tape.value(logits.shape, held.itemsize, needs_grad=logits.needs_grad)
    tape.record((held,), (likely,))
    loss = tape.value((1,), FP32, needs_grad=logits.needs_grad)
    chunk: Shape = ("CT", logits.shape[-1])

    def backward(run: Backward) -> None:
        if run.take(loss) is not None:
            for _ in range(2):
                run.new(chunk, held.itemsize, "gradient of activations")
            run.give(logits, run.new(chunk, logits.itemsize, "gradient of activations"))

    tape.record((likely,), (loss,), saves=(likely,), backward=backward)
    tape.hold(held)
    return loss, held


def _fused(ops: Ops, logits: Value, *, in_place: bool, held: bool) -> Value:
    """One kernel each way: the logits are saved as they are, with what a token's sum needs.

    The gradient is of the logits' type: written over them (`in_place`), or a tensor of its own, as
    torch.compile makes it (its partitioner saves the 16-bit logits and recomputes what is in fp32).
    Written over logits that the output holds, it takes nothing.
    """
    loss = ops.tape.value((1,), FP32, needs_grad=logits.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(loss) is None:
            return
        if in_place and not held:
            run.give(logits, run.in_place_of(logits))
            return
        made = run.new((1,), FP32, "gradient of activations") if in_place else run.like(logits)
        run.give(logits, made)

    ops.tape.record((logits,), (loss,), saves=(logits,), backward=backward)
    return loss


def _head_weights(ops: Ops, hidden: Value, vocabulary: Vocabulary) -> tuple[Value, list[Value]]:
    """The logits that a loss does not make, and the parameters they would be made with."""
    tape = ops.tape
    first, probe = len(tape.parameters), len(tape.ops)
    logits = vocabulary(hidden)
    weights = tape.parameters[first:]
    for op in tape.ops[probe:]:
        for storage in op.saves:
            tape.storages[storage].saves -= 1
    del tape.ops[probe:]
    ops.forget_casts(weights)
    return logits, weights


def _by_tiles(ops: Ops, hidden: Value, vocabulary: Vocabulary) -> Value:
    """Log-probabilities by tiles of CT tokens and VT words, in a buffer that each pass makes.

    The tokens that count are copied; of them a log-sum-exp is kept. Gradients are summed up in fp32
    and then cast (trl/kernels/chunked_logprob.py, ChunkedLogProbFunction of trl 1.16).
    """
    tape, width = ops.tape, ops.types.compute
    _, weights = _head_weights(ops, hidden, vocabulary)
    with tape.within("loss"):
        rows = ops.reduce_copy(hidden, hidden.shape)
        tiles: list[Shape] = [("CT", "VT")]
        again: list[Shape] = []
        if ops.types.autocast:
            # Copies of a tile's tokens and words; the next words' is made beside the last's.
            tiles += [("CT", hidden.shape[-1]), ("VT", hidden.shape[-1])]
            again = [("VN", hidden.shape[-1])]
        scratch = [tape.value(shape, width, needs_grad=False) for shape in tiles]
        sums = tape.value(hidden.shape[:-1], FP32, needs_grad=False)
        loss = tape.value((1,), FP32, needs_grad=True)
        tape.record((rows, *weights), (sums, *scratch))

    def backward(run: Backward) -> None:
        if run.take(loss) is None:
            return
        learning = [value for value in (rows, *weights) if value.needs_grad]
        parts = ["gradients" if v.parameter else "gradient of activations" for v in learning]
        wide = [run.new(v.shape, FP32, p) for v, p in zip(learning, parts, strict=True)]
        for shape in (*tiles, *again):
            run.new(shape, width)
        for value, summed in zip(learning, wide, strict=True):
            run.give(value, summed if value.itemsize == FP32 else run.like(value))

    tape.record((rows, sums, *weights), (loss,), saves=(rows, sums), backward=backward)
    return loss


def _without_logits(ops: Ops, hidden: Value, vocabulary: Vocabulary, *, cut: bool) -> Value:
    """Product and loss in one: chunks of logits come and go; gradients are made on the spot.

    `cut` keeps the log-sum-exp of each token and recomputes tiles in the chip's own memory.
    """
    tape, width = ops.tape, ops.types.compute
    logits, weights = _head_weights(ops, hidden, vocabulary)
    read = (hidden, *weights)
    with tape.within("loss"):
        if cut:
            made = [tape.value(hidden.shape[:-1], FP32, needs_grad=False)]
        else:
            learning = [value for value in read if value.needs_grad]
            made = [tape.value(v.shape, v.itemsize, needs_grad=False) for v in learning]
            tape.record(read, tuple(made))
            # Autocast casts a weight for the gradient of the states, and turned for every chunk.
            kept = [ops.autocast_weight(w) for w in weights]
            turned = [tape.value(w.shape, width, needs_grad=False) for w in weights]
            chunk = tape.value(("CT", logits.shape[-1]), width, needs_grad=False)
            if ops.types.autocast:
                tape.record((), tuple(turned))
            tape.record((), (chunk,))
            held = [chunk, *kept, *(turned if ops.types.autocast else ())]
            if width == FP32 and not ops.types.autocast:
                # A chunk's part of a weight's gradient is added to it; in 16 bit in the product.
                added = [
                    tape.value(w.shape, FP32, needs_grad=False) for w in weights if w.needs_grad
                ]
                tape.record((), tuple(added))
                held += added
            tape.hold(*held)
        loss = tape.value((1,), FP32, needs_grad=True)

    def backward(run: Backward) -> None:
        if run.take(loss) is None:
            return
        kept = iter(made)
        for value in read:
            if value.needs_grad:
                part = "gradients" if value.parameter else "gradient of activations"
                run.give(value, run.like(value) if cut else run.in_place_of(next(kept), part))

    saves = (*made, hidden) if cut else tuple(made)
    outputs = (loss, *made) if cut else (loss,)
    tape.record((*read, *made), outputs, saves=saves, backward=backward)
    return loss
