"""Feed-forward layers: plain and gated, and the activations between."""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.expert_adapters import renamed
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import Ops
from sizewright_server.estimation.tape import Dim, Tape, Value


def feed_forward(
    ops: Ops,
    style: Style,
    mode: Mode,
    x: Value,
    width: Dim = "F",
    joint: Dim = "F2",
    names: list[Value] | None = None,
) -> Value:
    """One MLP of inner width `width`; `joint` is the width of gate and up in one weight.

    `names` takes what the second projection reads, for a caller that still has a name for it.
    """
    joined: tuple[Value, ...] = ()
    if not style.gated_mlp:
        inner = activate(ops, style, _up(ops, style, "up", x, width))
    elif style.fused_gate_up:
        w = ops.weight((joint, "H"))
        both = ops.linear(x, joint, w, _bias(ops, style, joint), name=_name(ops, style, "gate-up"))
        joined = (both,)
        gate, up = split(ops.tape, both, (width, width))
        inner = _gate(ops, style, gate, up)
        ops.tape.hold(up)
    else:
        gate = _up(ops, style, "gate", x, width)
        if not style.fused_mlp:
            gate = activate(ops, style, gate)
        up = _up(ops, style, "up", x, width)
        inner = _gate(ops, style, gate, up) if style.fused_mlp else ops.multiply(gate, up)
    if style.mlp_inner_dropout:
        inner = ops.dropout(inner, float(mode.hidden_dropout))
    down = ops.weight(("H", width))
    out = ops.linear(inner, "H", down, _bias(ops, style, "H"), name=_name(ops, style, "down"))
    # Liger's layer has a name for gate and up in one until it returns.
    ops.tape.hold(x, *(joined if style.kernels_in_place and style.fused_mlp else ()))
    if names is not None:
        names.append(inner)
    return out


def _gate(ops: Ops, style: Style, gate: Value, up: Value) -> Value:
    """`activation(gate) * up`; as one kernel it saves both, and may write their gradients there."""
    if not style.fused_mlp:
        return ops.multiply(up, activate(ops, style, gate))
    if style.kernels_in_place and gate.storage == up.storage:
        gate, up = ops.copy(gate), ops.copy(up)
    out = ops.tape.value(gate.shape, gate.itemsize, needs_grad=gate.needs_grad or up.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            for value in (gate, up):
                if value.needs_grad:
                    in_place = style.kernels_in_place
                    run.give(value, run.in_place_of(value) if in_place else run.like(value))

    ops.tape.record((gate, up), (out,), saves=(gate, up), backward=backward)
    return out


def _up(ops: Ops, style: Style, name: str, x: Value, width: Dim) -> Value:
    w, bias = ops.weight((width, "H")), _bias(ops, style, width)
    return ops.linear(x, width, w, bias, name=_name(ops, style, name))


def _name(ops: Ops, style: Style, name: str) -> str:
    """A layer's name among adapters' targets, where it is not taken for the experts'."""
    return f"plain {name}" if renamed(ops.types, style) else name


def _bias(ops: Ops, style: Style, width: Dim) -> Value | None:
    return ops.weight((width,)) if style.mlp_bias else None


def activate(ops: Ops, style: Style, x: Value) -> Value:
    """The activation, as one kernel or as the Python expression the family uses."""
    kind = style.activation
    if kind == "gelu-new":
        half = ops.scale(x)
        cube = ops.power(x)
        inner = ops.scale(ops.add(x, ops.scale(cube)))
        tanh = ops.scale(ops.unary(inner, saves="output"))
        return ops.multiply(half, tanh)
    if kind == "gelu-fast":
        half = ops.scale(x)
        square = ops.multiply(ops.scale(ops.scale(x)), x)
        inner = ops.multiply(ops.scale(x), ops.scale(square))
        tanh = ops.scale(ops.unary(inner, saves="output"))
        return ops.multiply(half, tanh)
    if kind == "quick-gelu":
        return ops.multiply(x, ops.unary(ops.scale(x), saves="output"))
    if kind == "relu-squared":
        squared = ops.power(ops.unary(x, saves="output"))
        ops.tape.hold(x)
        return squared
    if kind == "bloom":
        return bloom_gelu(ops, x)
    # Run as separate operators, silu's backward holds five more tensors before its result.
    scratch = 5 if kind == "silu" and ops.types.traced else 0
    return ops.unary(x, saves=style.activation_saves, scratch=scratch)


def bloom_gelu(ops: Ops, x: Value) -> Value:
    """An autograd function of its own: saves its input; both passes make some temporaries."""
    tape = ops.tape
    made = [tape.value(x.shape, x.itemsize, needs_grad=False) for _ in range(4)]
    tape.record((x,), tuple(made))
    out = tape.value(x.shape, x.itemsize, needs_grad=x.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            for _ in range(4):
                run.like(x)
            run.give(x, run.like(x))

    tape.record((x, *made[:2]), (out,), saves=(x,), backward=backward)
    return out


def split(tape: Tape, joint: Value, widths: tuple[Dim, ...]) -> tuple[Value, ...]:
    """`split`/`chunk`: views of one storage; backward concatenates the gradients into a new one."""
    parts = tuple(
        Value(joint.storage, (*joint.shape[:-1], width), joint.itemsize, joint.needs_grad)
        for width in widths
    )

    def backward(run: Backward) -> None:
        taken = [run.take(part) for part in parts]
        if any(grad is not None for grad in taken):
            run.give(joint, run.like(joint))

    tape.record((joint,), parts, backward=backward)
    return parts
