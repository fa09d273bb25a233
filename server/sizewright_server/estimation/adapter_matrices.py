"""Adapters that make a matrix of a layer's whole width: LoHa and LoKr, OFT and BOFT.

The operators are those of PEFT 0.21 (peft/tuners/loha, lokr, oft and boft/layer.py), whose layers
give what they were given: the type of their input. Dimension names are those of `adapter_sizes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from sizewright_server.estimation.adapter_sizes import KRONECKER_PARTS
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.tape import Value

if TYPE_CHECKING:
    from sizewright_server.estimation.ops import Ops

Dim: TypeAlias = str | int
FP32 = 4


def through_delta(ops: Ops, x: Value, base: Value, width: Dim, w: Value) -> Value:
    """LoHa and LoKr: a whole weight is made of the factors in each pass and kept for backward.

    LoHa multiplies two low-rank products, under autocast in the computing type; LoKr's Kronecker
    product is promoted to the factors' own.
    """
    style, types = ops.types.adapter, ops.types
    assert style is not None
    hadamard = style.method == "loha"
    kind = types.compute if hadamard and types.autocast else types.trained
    factors = _factors(ops, width, x.shape[-1], hadamard=hadamard)
    before = [ops.tape.value(w.shape, kind, needs_grad=False) for _ in range(3 if hadamard else 1)]
    delta = ops.tape.value(w.shape, kind, needs_grad=True)

    def backward(run: Backward) -> None:
        if run.take(delta) is not None:
            for _ in range(3 if hadamard else 2):
                run.like(delta)
            for factor in factors:
                run.give(factor, run.like(factor))

    for made in before[:2]:
        ops.tape.record((), (made,))
    if hadamard:
        ops.tape.record(tuple(before[:2]), (before[2],))
    ops.tape.record((before[-1], *factors), (delta,), backward=backward)
    out = ops.add(base, ops.product(ops.cast(x, kind), width, delta))
    return ops.cast(out, x.itemsize)


def _factors(ops: Ops, width: Dim, inner: Dim, *, hadamard: bool) -> list[Value]:
    """The trained factors: two low-rank products (LoHa); a small and a low-rank block (LoKr)."""
    if hadamard:
        shapes: list[tuple[Dim, ...]] = [(width, "AR"), ("AR", inner)] * 2
    else:
        shapes = [(f"{width} x {inner}, {part}",) for part in KRONECKER_PARTS]
    return [ops.adapter_weight(shape) for shape in shapes]


def by_blocks(ops: Ops, x: Value) -> Value:
    """OFT turns x block by block in the adapter's type, by sums of powers of the blocks.

    Every product of the powers saves its operands (`_cayley_batch` of five terms); autocast's save
    copies of their own.
    """
    tape, types, inner = ops.tape, ops.types, x.shape[-1]
    with tape.within("adapter"):
        blocks = ops.adapter_weight((f"{inner}/2", "AW1"))
        wide = ops.cast(x, types.trained)
        read = ops.autocast_input(wide)
        count, width = (7, types.compute) if types.autocast else (4, types.trained)
        powers = [tape.value((inner, "AW"), width, needs_grad=False) for _ in range(count)]
        tape.record((), tuple(powers))
        turned = tape.value(x.shape, read.itemsize, needs_grad=True)

        def backward(run: Backward) -> None:
            if run.take(turned) is not None:
                run.give(read, run.like(read))
                run.give(blocks, run.like(blocks))

        saves = (read, *powers)
        tape.record((read, *powers, blocks), (turned,), saves=saves, backward=backward)
        copied = ops.copy(turned)
        out = ops.cast(copied, x.itemsize)
        tape.hold(wide, turned, copied)
        return out


def by_butterflies(ops: Ops, x: Value) -> Value:
    """BOFT: a permutation, the blocks and the identity are multiplied to a whole matrix.

    Autocast's products save copies of the permutation, one for each, and of what is wider.
    """
    inner, types = x.shape[-1], ops.types
    copies = types.autocast and x.itemsize != types.compute
    width = types.compute if copies else x.itemsize
    blocks = ops.adapter_weight((inner, "AW"))
    kept = [
        ops.tape.value((inner, inner), width, needs_grad=False) for _ in range(3 if copies else 2)
    ]
    rotation = ops.tape.value((inner, inner), width, needs_grad=True)

    def turn(run: Backward) -> None:
        if run.take(rotation) is not None:
            run.like(rotation)
            run.new(rotation.shape, FP32)
            run.give(blocks, run.like(blocks))

    ops.tape.record((blocks,), (*kept, rotation), saves=tuple(kept), backward=turn)
    whole = ops.cast(rotation, x.itemsize)
    out = ops.product(x, inner, ops.cast(whole, width))
    ops.tape.hold(whole)
    return out
