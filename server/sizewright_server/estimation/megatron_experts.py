"""Mixture-of-experts layers as Megatron Core runs them: permuted tokens, grouped GEMMs.

Tokens are permuted by expert, exchanged, run through the experts of the rank and brought back
(core/transformer/moe: router.py, token_dispatcher.py, experts.py with grouped GEMMs). Experts are
split over tensor-parallel ranks too, which therefore see the tokens of all of them. The activation
is weighed with the router's probabilities, so that the results of the second GEMM are not kept.
Dimensions as in `experts.py`: NL experts of the rank, XK experts per token; SX tokens that the
ranks which share an expert's parts see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.ops import FP32, INT64
from sizewright_server.estimation.tape import Dim, Shape, Value

if TYPE_CHECKING:
    from sizewright_server.estimation.megatron import Layers

ROWS: Shape = ("B", "SX", "XK")


def mixture(layers: Layers, x: Value) -> Value:
    """Router, dispatch, experts, and the shared expert where there is one."""
    chosen = _route(layers, x)
    rows = _moved(layers, x, (*ROWS, "H"), chosen)
    both = _grouped(layers, rows, "FX2" if layers.style.gated_mlp else "FX", "H")
    inner = layers.activate(both, "FX")
    out = _moved(layers, _grouped(layers, inner, "H", "FX"), x.shape, chosen)
    if layers.style.shared_expert == "none":
        return out
    shared = layers.column(x, "FS2" if layers.style.gated_mlp else "FS", bias=False)
    return layers.ops.add(out, layers.row(layers.activate(shared, "FS"), "FS", bias=False))


def _route(layers: Layers, x: Value) -> Value:
    """Scores of all experts in fp32, and the chosen ones' indices: both are kept."""
    tape, tokens = layers.tape, x.shape[:-1]
    w = layers.ops.weight(("N", "H"))
    scores = tape.value((*tokens, "N"), FP32, needs_grad=True)
    index = tape.value((*tokens, "XK"), INT64, needs_grad=False)

    def backward(run: Backward) -> None:
        if run.take(scores) is not None:
            run.give(x, run.like(x))
            run.give(w, run.like(w))

    tape.record((x, w), (scores, index), saves=(x, scores, index), backward=backward)
    return index


def _moved(layers: Layers, x: Value, shape: Shape, chosen: Value) -> Value:
    """Tokens permuted and exchanged: a sorted copy on the way there, as on the way back."""
    sent = layers.hidden((*x.shape[:2], "XK", "H") if x.shape[-1] == "H" else x.shape)
    layers.tape.record((x,), (sent,))
    out = layers.hidden(shape)

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            back = run.new(sent.shape, sent.itemsize)
            run.give(x, run.like(x))
            run.free(back)

    layers.tape.record((x, sent, chosen), (out,), backward=backward)
    return out


def _grouped(layers: Layers, x: Value, width: Dim, inner: Dim) -> Value:
    """A grouped GEMM over the experts of the rank: saves its rows."""
    w = layers.ops.weight(("NL", width, inner))
    out = layers.hidden((*x.shape[:-1], width))

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            run.give(x, run.like(x))
            run.give(w, run.like(w))

    layers.tape.record((x, w), (out,), saves=(x,), backward=backward)
    return out
