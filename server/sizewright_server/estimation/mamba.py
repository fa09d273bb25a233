"""Mamba's mixer (Mamba, Falcon-Mamba, Jamba): a selective scan over every channel.

In torch's own operators, as transformers 5.23 runs them where mamba-ssm is not installed, every
token's decay and input of every state are whole tensors (MambaMixer.forward); the kernels of
mamba-ssm are in `mamba_kernels.py`. Dimensions: `recurrent.py`.
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.convolution import without_padding
from sizewright_server.estimation.feedforward import split
from sizewright_server.estimation.mamba_kernels import inner_kernel, scan_kernel
from sizewright_server.estimation.mamba_layers import convolved, projected
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.norms import plain_rms_norm, rms_norm
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.recurrent_state import ONE_STATE, keep_last, one_step
from sizewright_server.estimation.tape import Shape, Value

#: One number for every state of every channel of every token, and the states after each token.
STATES: Shape = ("B", "S", "MI", "MN")


def mamba_mixer(ops: Ops, style: Style, mode: Mode, x: Value, cached: list[Value]) -> Value:
    """The mixer over normed hidden states; `cached` takes what it keeps for later calls."""
    tape = ops.tape
    bias = style.mixer_bias
    unmasked, x = x, without_padding(ops, mode, x)
    joint = projected(ops, x, "MI2", "H", "in-proj", bias=bias)
    decay = _decay(ops, ("MI", "MN"))
    # The kernel that has it all is for training alone, and knows no norm of the time step's rank.
    whole_kernel = style.fused_recurrence and style.mixer_norms != "rms" and mode.training
    if not mode.one_sample and (whole_kernel or not style.fused_recurrence):
        # The gradient comes channel by channel and is read token by token.
        joint = ops.expand(joint, joint.shape)
    if whole_kernel:
        out = inner_kernel(ops, style, mode, joint, decay)
        tape.hold(unmasked, x, joint)
        return out
    mixed, gate = split(tape, joint, ("MI", "MI"))
    conv = convolved(ops, style, mode, mixed, "MI", cached)
    step, b, c = _selected(ops, style, mode, conv)
    bias_of_step = ops.cast(ops.weight(("MI",)), FP32)
    skip = ops.cast(ops.weight(("MI",)), FP32)
    if mode.one_query and mode.cache != "none":
        scanned, last = one_step(ops, conv, "MI")
    elif style.fused_recurrence:
        scanned, last = scan_kernel(ops, conv, step, decay, b, c, gate)
    else:
        scanned, last = _scan(ops, conv, step, bias_of_step, decay, b, c, skip, gate)
    keep_last(ops, mode, last, cached)
    narrow = ops.cast(scanned, x.itemsize)
    read = _rows(ops, mode, ops.autocast_input(narrow))
    out = projected(ops, read, "H", "MI", "mixer-out", bias=bias)
    tape.hold(unmasked, x, joint, step, narrow, scanned, conv, last)
    return out


def _decay(ops: Ops, shape: Shape) -> Value:
    """`-exp(A_log.float())`."""
    return ops.scale(ops.unary(ops.cast(ops.weight(shape), FP32), saves="output"))


def _rows(ops: Ops, mode: Mode, x: Value) -> Value:
    """What a linear layer reads of channels first: a copy, but of one sample a view."""
    return x if mode.one_sample else ops.copy(x)


def _selected(ops: Ops, style: Style, mode: Mode, conv: Value) -> tuple[Value, Value, Value]:
    """The time step of every channel, and the input's and the output's weights of every state."""
    tape = ops.tape
    read = conv if style.fused_recurrence else _rows(ops, mode, conv)
    rows = projected(ops, read, "MX", "MI", "x-proj")
    step, b, c = split(tape, rows, ("MR", "MN", "MN"))
    if style.mixer_norms != "none":
        step, b, c = (_norm(ops, style, value) for value in (step, b, c))
    w = ops.weight(("MI", "MR"))
    product = ops.product(step, "MI", w)
    if ops.types.adapter is not None and "dt-proj" in ops.types.adapter.targets:
        # Its weight alone is read: an adapter there has no part in the pass.
        ops.adapter_weight(("AR", "MR"))
        ops.adapter_weight(("MI", "AR"))
    return ops.copy(ops.expand(product, product.shape)), b, c


def _norm(ops: Ops, style: Style, x: Value) -> Value:
    width = x.shape[-1]
    if style.mixer_norms == "plain":
        # Weights of ones for the kernels' sake.
        full = "MI" if width == "MR" else width
        ops.tape.buffers.append(((full,), ops.types.weight))
        return plain_rms_norm(ops, x)
    return rms_norm(ops, x, (width,), "rms")


def _scan(
    ops: Ops,
    x: Value,
    step: Value,
    bias: Value,
    decay: Value,
    b: Value,
    c: Value,
    skip: Value,
    gate: Value,
) -> tuple[Value, Value]:
    """mamba_selective_scan's loop over the tokens, with the skip and the gate behind it;
    and the last state."""
    tape = ops.tape
    moved = ops.add(step, ops.cast(bias, step.itemsize))
    if ops.types.autocast:
        moved = ops.cast(moved, FP32)
    steps = ops.unary(moved, saves="input")
    decays = ops.unary(_outer(ops, steps, decay), saves="output")
    weights = _outer(ops, steps, ops.cast(b, FP32))
    inputs = ops.multiply(weights, ops.cast(x, FP32))
    made, pieces, last = _loop(ops, decays, inputs, c, x.itemsize)
    summed = ops.add(made, ops.multiply(x, skip))
    tape.hold(made)
    out = ops.multiply(summed, ops.unary(gate, scratch=5 if ops.types.traced else 0))
    tape.hold(steps, decays, weights, inputs, pieces, summed)
    return out, last


def _outer(ops: Ops, a: Value, b: Value) -> Value:
    """A product of two broadcast tensors with a number for every state, in fp32."""
    out = ops.tape.value(STATES, FP32, needs_grad=a.needs_grad or b.needs_grad)

    def backward(run: Backward) -> None:
        if run.take(out) is None:
            return
        for value in (a, b):
            if value.needs_grad:
                run.give_as(value, out, run.new(out.shape, FP32, "gradient of activations"))

    saves = tuple(v for v, other in ((b, a), (a, b)) if other.needs_grad)
    ops.tape.record((a, b), (out,), saves=saves, backward=backward)
    return out


def _loop(
    ops: Ops, decays: Value, inputs: Value, c: Value, width: int
) -> tuple[Value, Value, Value]:
    """`state = decay * state + input; output = state @ c` of every token: the outputs, their
    pieces and the last state.

    Autograd keeps every state, in 16 bit once more for the product. Each token's gradients of
    decays and inputs fill zeros for all tokens, which are added up.
    """
    tape = ops.tape
    running, last = (tape.value(ONE_STATE, FP32, needs_grad=False) for _ in range(2))
    states = tape.value(("S", *ONE_STATE), FP32, needs_grad=False)
    narrow = tape.value(("S", *ONE_STATE), width, needs_grad=False) if width != FP32 else states
    pieces = tape.value(("S", "B", "MI"), width, needs_grad=False)
    # Without gradients each state is dropped for the next.
    tape.storages[states.storage].recorded = tape.storages[narrow.storage].recorded = True
    made = (states, narrow, pieces, running)
    # With gradients the last state is one of those kept.
    tape.record((decays, inputs), made if ops.training else (*made, last))
    out = tape.value(("B", "S", "MI"), width, needs_grad=True)

    def backward(run: Backward) -> None:
        if run.take(out) is None:
            return
        run.give(c, run.like(c))
        one = run.new(ONE_STATE, FP32)
        given = [(inputs, run.like(inputs)), (decays, run.like(decays))]
        for _ in range(1 + ops.types.traced):
            run.new(STATES, FP32, "gradient of activations")
        run.free(one)
        for value, grad in given:
            run.give(value, grad)

    saves = (decays, states, c) if narrow is states else (decays, states, narrow, c)
    tape.record((decays, inputs, c, states, narrow, pieces), (out,), saves=saves, backward=backward)
    return out, pieces, states if ops.training else last
