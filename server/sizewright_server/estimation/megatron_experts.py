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
    start = layers.here
    both = _grouped(layers, rows, "FX2" if layers.style.gated_mlp else "FX", "H")
    layers.moved(start)
    remade, start = layers.remade("moe_act"), layers.here
    inner = layers.activate(both, "FX")
    remade.stop()
    down = _grouped(layers, inner, "H", "FX")
    remade.close()
    layers.moved(start)
    out = _moved(layers, down, x.shape, chosen)
    if layers.style.shared_expert == "none":
        return out
    return layers.ops.add(out, _shared(layers, x))


def _shared(layers: Layers, x: Value) -> Value:
    """The expert that sees every token."""
    remade = layers.remade("shared_experts")
    inner = layers.column(x, "FS2" if layers.style.gated_mlp else "FS", bias=False)
    out = layers.row(layers.activate(inner, "FS"), "FS", bias=False)
    remade.stop()
    remade.close()
    return out


def _route(layers: Layers, x: Value) -> Value:
    """Scores of all experts in fp32, and the chosen ones' indices: both are kept."""
    tape, tokens = layers.tape, x.shape[:-1]
    w = layers.ops.weight(("N", "H"))
    scores = tape.value((*tokens, "N"), FP32, needs_grad=True)
    index = tape.value((*tokens, "XK"), INT64, needs_grad=False)

    def backward(run: Backward) -> None:
        if run.take(scores) is not None:
            run.give(x, run.like(x))
            if w.needs_grad:
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
    kept = layers.kept(x)
    out = layers.hidden((*x.shape[:-1], width))

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            run.give(x, run.like(x))
            layers.give_weights(run, w)

    saves = (kept,) if w.needs_grad else ()
    layers.tape.record((x, w), (out,), saves=saves, backward=backward)
    return out
