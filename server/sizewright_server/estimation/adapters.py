"""Adapters as operators beside a linear layer: what each method makes and saves.

The operators are those of PEFT 0.21 (peft/tuners/*/layer.py) and of litgpt's own LoRA. A frozen
linear layer saves no input; an adapter saves its own copy of it, in the adapter's type.
Dimension names are those of `adapter_sizes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from sizewright_server.estimation.adapter_matrices import by_blocks, by_butterflies, through_delta
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.gated_prompts import shifted_and_scaled
from sizewright_server.estimation.tape import Shape, Value
from sizewright_server.estimation.techniques import Adapter

if TYPE_CHECKING:
    from sizewright_server.estimation.ops import Ops, Types

Dim: TypeAlias = str | int
FP32 = 4
#: Methods that put virtual tokens before the others.
PROMPTS = ("prompt-tuning", "p-tuning")


def virtual_tokens(adapter: Adapter | None, *, keys_only: bool) -> int:
    """Tokens an adapter adds to every sample; `keys_only` those that only keys and values have."""
    if adapter is None:
        return 0
    adds = adapter.method == "prefix-tuning" if keys_only else adapter.method in PROMPTS
    return adapter.virtual_tokens if adds else 0


def has_prompt(types: Types) -> bool:
    """Virtual tokens come before a sample's own."""
    return types.adapter is not None and types.adapter.method in PROMPTS


def has_prefix(types: Types) -> bool:
    """Every layer's keys and values begin with trained ones."""
    return types.adapter is not None and types.adapter.method == "prefix-tuning"


def prompted(ops: Ops, embeddings: Value, *, leaf: bool) -> Value:
    """The embeddings behind the virtual tokens' (peft/peft_model.py); the prefix's own table.

    P-tuning makes them of an embedding and three linear layers. `leaf`: where blocks are
    checkpointed PEFT makes the embeddings take a gradient, so that the graph has them to its end.
    """
    types, tape = ops.types, ops.tape
    assert types.adapter is not None or not has_prompt(types)
    if has_prefix(types):
        past = ops.embedding(("B", "AV"), ops.adapter_weight(("AV", "AP")), "AP")
        ops.cast(past, types.compute)
    if not has_prompt(types):
        return embeddings
    with tape.within("adapter"):
        rows = ops.embedding(("B", "AV"), ops.adapter_weight(("AV", "E")), "E")
        if types.adapter is not None and types.adapter.method == "p-tuning":
            for _ in range(3):
                w = ops.adapter_weight(("E", "E"))
                rows = ops.product(rows, "E", w, ops.adapter_weight(("E",)))
        rows = ops.cast(rows, embeddings.itemsize)
        joined = ops.concatenate((rows, embeddings), ("B", "S", "E"))
        return _with_leaf(ops, joined, embeddings) if leaf else joined


def _with_leaf(ops: Ops, joined: Value, leaf: Value) -> Value:
    """What was joined, beside a tensor that lives until its node has run."""
    out = Value(joined.storage, joined.shape, joined.itemsize, joined.needs_grad)

    def backward(run: Backward) -> None:
        grad = run.take(out)
        if grad is not None:
            run.give(joined, grad)

    ops.tape.record((joined, leaf), (out,), saves=(leaf,), backward=backward)
    return out


def behind_prefix(ops: Ops, x: Value) -> tuple[Value, Value]:
    """Keys or values behind the prefix's, and the same as the cache that holds them."""
    prefix = ops.tape.external(("B", "AV", x.shape[-1]), x.itemsize, needs_grad=True)
    whole = ops.concatenate((prefix, x), ("B", "C", x.shape[-1]))
    return whole, Value(whole.storage, whole.shape, whole.itemsize, needs_grad=False)


def adapted_linear(
    ops: Ops, x: Value, width: Dim, w: Value, bias: Value | None, name: str
) -> Value:
    """The layer, and its adapter where `name` is among the targets."""
    style = ops.types.adapter
    joint = style is not None and name == "qkv" and style.code == "litgpt"
    if style is None or (name not in style.targets and not joint):
        return ops.frozen_or_whole(x, width, w, bias, name)
    if style.method == "adapter-v2":
        return shifted_and_scaled(ops, ops.frozen_or_whole(x, width, w, bias, name))
    if joint:
        return _joint(ops, x, width, w, bias)
    if style.method in ("boft", "oft"):
        turned = by_butterflies(ops, x) if style.method == "boft" else by_blocks(ops, x)
        out = ops.frozen_or_whole(turned, width, w, bias, name)
        scaled = _scaled(ops, out, width, x.itemsize) if style.method == "boft" else out
        return ops.cast(scaled, x.itemsize)
    if style.method == "ia3" and name in ("down", "o", "attention-out"):
        scaled = _scaled(ops, x, x.shape[-1], x.itemsize)
        return ops.frozen_or_whole(scaled, width, w, bias, name)
    out = ops.frozen_or_whole(x, width, w, bias, name)
    with ops.tape.within("adapter"):
        if style.method == "ia3":
            return _scaled(ops, out, width, out.itemsize)
        if style.method in ("loha", "lokr"):
            return through_delta(ops, x, out, width, w)
        return low_rank(ops, x, out, width, w, bias)


def low_rank(
    ops: Ops, x: Value, base: Value, width: Dim, w: Value, bias: Value | None = None
) -> Value:
    """`base + B(A(dropout(x))) * scaling`: x is cast to the adapter's type and lives to the end."""
    style = ops.types.adapter
    assert style is not None
    wide = x if style.code == "litgpt" else ops.cast(x, ops.types.trained)
    kept = ops.dropout(wide, float(style.dropout))
    if style.method == "vera":
        delta = _vera(ops, kept, width)
    elif style.method == "adalora":
        delta = _adalora(ops, kept, width)
    else:
        down = _down(ops, x)
        delta = ops.product(ops.product(kept, "AR", down), width, ops.adapter_weight((width, "AR")))
    if style.method == "dora":
        # Without dropout the magnitudes scale what the weight alone gave.
        plain = base if bias is None or style.dropout else ops.add(base, bias)
        delta = _dora(ops, kept, delta, plain, width, w)
    elif style.method not in ("vera", "adalora"):
        delta = ops.scale(delta)
    out = ops.cast(ops.add(base, delta), base.itemsize)
    ops.tape.hold(wide, *((base, delta) if style.code == "litgpt" else ()))
    return out


def _joint(ops: Ops, x: Value, width: Dim, w: Value, bias: Value | None) -> Value:
    """litgpt's LoRA over one weight for q, k and v: the results of those that have one are put into
    zeros of the whole width (LoRAQKVLinear)."""
    style = ops.types.adapter
    assert style is not None
    base = ops.frozen_or_whole(x, width, w, bias, "qkv")
    parts = [(n, d) for n, d in (("q", "A"), ("k", "K"), ("v", "K")) if n in style.targets]
    if not parts:
        return base
    with ops.tape.within("adapter"):
        kept = ops.dropout(x, float(style.dropout))
        made = []
        for _, part in parts:
            down = ops.product(kept, "AR", ops.adapter_weight(("AR", x.shape[-1])))
            up = ops.adapter_weight((part, "AR"))
            made.append(ops.product(ops.copy(down), part, up))
        padded = _among_zeros(ops, tuple(made), (*x.shape[:-1], width), all_three=len(parts) == 3)
        delta = ops.scale(padded)
        out = ops.add(base, delta)
        ops.tape.hold(x, base, delta, *made)
        return out


def _among_zeros(ops: Ops, parts: tuple[Value, ...], shape: Shape, *, all_three: bool) -> Value:
    """`zeros.index_copy_(index, source)`, which saves its source; nothing to fill where all are."""
    if all_three:
        return ops.concatenate(parts, shape)
    out = ops.tape.value(shape, parts[0].itemsize, needs_grad=True)

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            for part in parts:
                run.give(part, run.like(part))

    ops.tape.record(parts, (out,), saves=parts, backward=backward)
    return out


def _down(ops: Ops, x: Value) -> Value:
    """LoRA's A matrix; LoRA-FA freezes it, and then its input is not saved."""
    assert ops.types.adapter is not None
    shape = ("AR", x.shape[-1])
    if ops.types.adapter.method == "lora-fa":
        return ops.tape.parameter(shape, ops.types.trained, trainable=False)
    return ops.adapter_weight(shape)


def _adalora(ops: Ops, x: Value, width: Dim) -> Value:
    """`x @ (A * E).T @ B.T * scaling / ranknum`; the rank's number counts as trained, so that the
    division saves its dividend."""
    a, e = ops.adapter_weight(("AR", x.shape[-1])), ops.adapter_weight(("AR", 1))
    scaled = ops.multiply(a, e)
    b = ops.adapter_weight((width, "AR"))
    delta = ops.scale(ops.product(ops.product(x, "AR", scaled), width, b))
    return ops.multiply(delta, ops.adapter_weight((1,)))


def _vera(ops: Ops, x: Value, width: Dim) -> Value:
    """`lambda_b * (lambda_d * x A.T) B.T` over frozen A and B that all layers share."""
    shared = [
        ops.tape.external(shape, ops.types.trained)
        for shape in (("AR", x.shape[-1]), (width, "AR"))
    ]
    inner = ops.multiply(ops.product(x, "AR", shared[0]), ops.adapter_weight(("AR",)))
    return ops.multiply(ops.product(inner, width, shared[1]), ops.adapter_weight((width,)))


def _dora(ops: Ops, x: Value, delta: Value, base: Value, width: Dim, w: Value) -> Value:
    """`(m / n - 1) * base + (m / n) * delta * scaling`, n the norm of each row of the whole weight.

    The norm takes the identity through A and B, the weight in the adapter's type, and their sum.
    With dropout, the base is made once more, of what the dropout left and the weight in that type
    (peft/tuners/lora/variants.py, `base_result=None`).
    """
    tape, kind = ops.tape, ops.types.trained
    inner = w.shape[-1]
    eye, whole, total = (
        tape.value(shape, kind, needs_grad=False) for shape in ((inner, inner), w.shape, w.shape)
    )
    tape.record((), (eye,))
    tape.record((eye,), (whole,))
    # A quantised weight is made whole for it; one of the adapter's own type is read as it is.
    cast = w
    if w.stored is not None or w.itemsize != kind:
        cast = tape.value(w.shape, kind, needs_grad=False)
        tape.record((w,), (cast,))
    tape.record((cast, whole), (total,))
    norm = tape.value((width,), kind, needs_grad=False)
    tape.record((total,), (norm,))
    magnitude = ops.multiply(ops.adapter_weight((width,)), norm)
    if ops.types.adapter is not None and ops.types.adapter.dropout:
        base = ops.product(x, width, cast)
    tape.hold(eye, cast, whole)
    own = ops.multiply(base, ops.scale(magnitude))
    return ops.add(own, ops.scale(ops.multiply(delta, magnitude)))


def _scaled(ops: Ops, x: Value, width: Dim, itemsize: int) -> Value:
    """A trained scale of each feature; what it scales is saved in the type it is scaled in."""
    with ops.tape.within("adapter"):
        wide = x
        if ops.types.adapter is not None and ops.types.adapter.method == "ia3" and width == "F":
            wide = ops.cast(x, ops.types.trained)
        return ops.cast(ops.multiply(wide, ops.adapter_weight((width,))), itemsize)
