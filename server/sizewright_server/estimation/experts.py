"""Mixture-of-experts layers as transformers 5.23 runs them on a GPU: sorted tokens, grouped GEMMs.

Source: integrations/moe.py, `grouped_mm_experts_forward`, the default where torch has grouped_mm.
Tokens are repeated for each of their experts, so that activations grow with the experts per token
and not with the number of experts. Dimensions: N experts, NL those of one rank, XK experts
per token, FX feed-forward width of one expert, FX2 gate and up of one, FS and FS2 the same of the
shared expert.
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.expert_adapters import (
    DOWN,
    GATE_AND_UP,
    expert_weight,
    router_weight,
)
from sizewright_server.estimation.feedforward import activate, feed_forward, split
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import FP32, INT64, Ops
from sizewright_server.estimation.tape import Dim, Shape, Value

ROWS: Shape = ("B", "S", "XK")
#: Every token once for each expert.
COPIES: Shape = ("NL", "B", "S")


def sparse_feed_forward(ops: Ops, style: Style, mode: Mode, x: Value) -> Value:
    """Router, experts and, where there is one, the shared expert."""
    if style.dense_experts:
        return _every_expert(ops, style, mode, x)
    if style.shared_expert != "none" and style.shared_expert_first:
        return _shared_first(ops, style, mode, x)
    scores = _route(ops, style, x)
    out = _through_latent(ops, style, x, scores)
    if style.shared_expert != "none":
        out = ops.add(out, _shared(ops, style, mode, x))
    ops.tape.hold(x)
    return out


def _shared_first(ops: Ops, style: Style, mode: Mode, x: Value) -> Value:
    """Qwen-MoE: the shared expert runs before the others, and its gate after them."""
    shared = feed_forward(ops, style, mode, x, "FS", "FS2")
    out = routed(ops, style, x, _route(ops, style, x))
    if style.shared_expert == "gated":
        shared = _gated(ops, x, shared)
    out = ops.add(out, shared)
    ops.tape.hold(x)
    return out


def _through_latent(ops: Ops, style: Style, x: Value, scores: Value) -> Value:
    """The experts, in a narrower space where hidden states are projected to one (Nemotron-H)."""
    if not style.latent_experts:
        return routed(ops, style, x, scores)
    narrow = ops.linear(x, "EL", ops.weight(("EL", "H")), _latent_bias(ops, style, "EL"))
    out = routed(ops, style, narrow, scores)
    return ops.linear(out, "H", ops.weight(("H", "EL")), _latent_bias(ops, style, "H"))


def _latent_bias(ops: Ops, style: Style, width: str) -> Value | None:
    return ops.weight((width,)) if style.mlp_bias else None


def _route(ops: Ops, style: Style, x: Value) -> Value:
    """Scores of the chosen experts, one row per token; their indices are saved as int64."""
    tape, width = ops.tape, x.itemsize
    if style.router_fp32:
        x = ops.cast(x, FP32)
    logits = ops.linear(x, "N", router_weight(ops, style), _router_bias(ops, style))
    if style.score_correction:
        ops.weight(("N",)).needs_grad = False
    wide = ops.cast(logits, FP32)
    likely = (
        ops.softmax(wide, FP32) if style.router != "sigmoid" else ops.unary(wide, saves="output")
    )
    chosen = tape.value(ROWS, FP32, needs_grad=likely.needs_grad)
    index = tape.value(ROWS, INT64, needs_grad=False)

    def backward(run: Backward) -> None:
        if run.take(chosen) is not None:
            run.give(likely, run.like(likely))

    tape.record((likely,), (chosen, index), saves=(index,), backward=backward)
    if style.router_normalises:
        chosen = ops.unary(chosen, saves="input")
    return ops.cast(chosen, width) if style.router_casts else chosen


def _every_expert(ops: Ops, style: Style, mode: Mode, x: Value) -> Value:
    """Llama 4: a copy of every token for each expert, scaled by a score that is mostly 0."""
    tape = ops.tape
    logits = ops.linear(x, "N", ops.weight(("N", "H")), None)
    index = tape.value(ROWS, INT64, needs_grad=False)
    spread = tape.value(logits.shape, logits.itemsize, needs_grad=logits.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(spread) is not None:
            run.give(logits, run.like(logits))

    tape.record((logits,), (index, spread), saves=(index,), backward=backward)
    scores = ops.cast(ops.unary(ops.cast(spread, FP32), saves="output"), logits.itemsize)
    copies = _copied(ops, x)
    scaled = ops.multiply(copies, tape.view(scores, (*COPIES, 1)))
    both = batched(ops, scaled, "FX2", ops.weight(("NL", "H", "FX2")))
    gate, up = split(tape, both, ("FX", "FX"))
    inner = ops.multiply(up, activate(ops, style, gate))
    down = batched(ops, inner, "H", ops.weight(("NL", "FX", "H")))
    shared = _shared(ops, style, mode, x)
    summed = _sum_of_experts(ops, down, x.shape)
    tape.hold(x, logits, scores, scaled, down)
    return _added_in_place(ops, shared, summed)


def _copied(ops: Ops, x: Value) -> Value:
    """`x.repeat`: backward adds the copies' gradients up."""
    out = ops.tape.value((*COPIES, "H"), x.itemsize, needs_grad=x.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            run.give(x, run.like(x))

    ops.tape.record((x,), (out,), backward=backward)
    return out


def _added_in_place(ops: Ops, x: Value, more: Value) -> Value:
    """`x.add_(more)`."""

    def backward(run: Backward) -> None:
        grad = run.take(out)
        if grad is not None:
            run.give(more, grad)
            run.give(x, grad)

    out = Value(x.storage, x.shape, x.itemsize, x.needs_grad)
    ops.tape.record((x, more), (out,), backward=backward)
    return out


def _router_bias(ops: Ops, style: Style) -> Value | None:
    return ops.weight(("N",)) if style.router_bias else None


def routed(ops: Ops, style: Style, x: Value, scores: Value) -> Value:
    """Every token through its experts, weighed and added up."""
    tape = ops.tape
    orders = [tape.value(ROWS, INT64, needs_grad=False) for _ in range(3)]
    tape.record((), tuple(orders))
    rows = gather(ops, x, (*ROWS, x.shape[-1]), orders[1])
    shares = gather(ops, scores, ROWS, orders[2])
    inner, named = expert_layer(ops, style, rows)
    w = expert_weight(ops, style, ("NL", x.shape[-1], "FX"), DOWN)
    down = grouped(ops, inner, x.shape[-1], w)
    if style.expert_bias:
        down, more = add_rows(ops, down, ops.weight(("NL", "H")))
        tape.hold(*named)
        named = (more,)
    weighed = ops.multiply(down, tape.view(shares, (*ROWS, 1)))
    back = tape.value(ROWS, INT64, needs_grad=False)
    tape.record((), (back,))
    ordered = gather(ops, weighed, weighed.shape, back)
    summed = _sum_of_experts(ops, ordered, x.shape)
    tape.hold(rows, shares, down, orders[0], ordered, w, *named)
    return ops.cast(summed, x.itemsize)


def expert_layer(ops: Ops, style: Style, rows: Value) -> tuple[Value, tuple[Value, ...]]:
    """Gate, up and activation of every row; and what keeps its name: the rows of a bias, or the
    weight, which an adapter may have made anew."""
    if style.expert_gate == "none":
        up = grouped(ops, rows, "FX", ops.weight(("NL", "FX", rows.shape[-1])))
        return activate(ops, style, up), ()
    w = expert_weight(ops, style, ("NL", "FX2", rows.shape[-1]), GATE_AND_UP)
    both = grouped(ops, rows, "FX2", w)
    named: tuple[Value, ...] = (w,)
    if style.expert_bias:
        both, biases = add_rows(ops, both, ops.weight(("NL", "FX2")))
        named = (biases,)
    if style.expert_gate == "clamped":
        return clamped_gate(ops, both), named
    gate, up = split(ops.tape, both, ("FX", "FX"))
    return ops.multiply(activate(ops, style, gate), up), named


def clamped_gate(ops: Ops, both: Value) -> Value:
    """gpt-oss: gate and up in turn, clamped, (up + 1) * gate * sigmoid(alpha * gate)."""
    gate, up = (ops.slice(both, (*ROWS, "FX")) for _ in range(2))
    gate, up = ops.unary(gate, saves="input"), ops.unary(up, saves="input")
    glu = ops.multiply(gate, ops.unary(ops.scale(gate), saves="output"))
    out = ops.multiply(ops.scale(up), glu)
    ops.tape.hold(both, gate, up, glu)
    return out


def grouped(ops: Ops, x: Value, width: Dim, w: Value) -> Value:
    """`grouped_mm`: saves rows and weight; reads both in the weight's type.

    Autocast does not know it (aten/autocast_mode.h): fp32 weights are multiplied in fp32.
    """
    if ops.types.quantized_experts and not w.needs_grad:
        return _one_by_one(ops, x, width, w)
    x = ops.cast(x, w.itemsize)
    grad = x.needs_grad or w.needs_grad
    out = ops.tape.value((*x.shape[:-1], width), x.itemsize, needs_grad=grad)
    saves = (*((x,) if w.needs_grad else ()), *((w,) if x.needs_grad else ()))

    def backward(run: Backward) -> None:
        if run.take(out) is None:
            return
        for value in (w, x):
            if value.needs_grad:
                run.give(value, run.like(value))

    ops.tape.record((x, w), (out,), saves=saves, backward=backward)
    return out


def _one_by_one(ops: Ops, x: Value, width: Dim, w: Value) -> Value:
    """A quantised linear layer of each expert: its matrix alone is made, in both passes."""
    w.stored = ops.types.quantized
    narrow = ops.cast(x, ops.types.compute)
    out = ops.dequantized_product(narrow, width, ops.tape.view(w, w.shape[1:]))
    return ops.cast(out, x.itemsize)


def batched(ops: Ops, x: Value, width: str, w: Value) -> Value:
    """`bmm` of every expert's rows, which autocast runs in 16 bit."""
    return grouped(ops, ops.autocast_input(x), width, ops.autocast_weight(w))


def gather(ops: Ops, x: Value, shape: Shape, index: Value) -> Value:
    """`x[index]`: backward fills zeros and then a second tensor of x's shape."""
    out = ops.tape.value(shape, x.itemsize, needs_grad=x.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            zeros = run.like(x)
            run.give(x, run.like(x))
            run.free(zeros)

    ops.tape.record((x, index), (out,), saves=(index,), backward=backward)
    return out


def add_rows(ops: Ops, x: Value, bias: Value) -> tuple[Value, Value]:
    """`x.add_(bias[expert_of_row])`, and the gathered bias."""
    rows = gather(ops, bias, x.shape, ops.tape.external(ROWS, INT64))
    return _added_in_place(ops, x, rows), rows


def _sum_of_experts(ops: Ops, x: Value, shape: Shape) -> Value:
    out = ops.tape.value(shape, x.itemsize, needs_grad=x.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            run.give(x, run.like(x))

    ops.tape.record((x,), (out,), backward=backward)
    return out


def _shared(ops: Ops, style: Style, mode: Mode, x: Value) -> Value:
    """The expert that sees every token; Qwen-MoE scales it by a learned gate."""
    out = feed_forward(ops, style, mode, x, "FS", "FS2")
    return _gated(ops, x, out) if style.shared_expert == "gated" else out


def _gated(ops: Ops, x: Value, out: Value) -> Value:
    gate = ops.linear(x, 1, ops.weight((1, "H")), name="shared-gate")
    return ops.multiply(out, ops.unary(gate, saves="output"))
