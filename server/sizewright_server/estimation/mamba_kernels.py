"""Mamba's mixer in the kernels of mamba-ssm 2.3 and causal-conv1d 1.7.

What these autograd functions make and save was read in their source (selective_scan_interface.py,
csrc/selective_scan/selective_scan.cpp) and traced with kernels that do nothing. Dimensions:
`recurrent.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Shape, Value

CHANNELS: Shape = ("B", "S", "MI")
WEIGHTS: Shape = ("B", "S", "MN")
#: Two numbers for every state that the scan writes down on its way.
WRITTEN: Shape = ("B", "MI", "MV", 2, "MN")


@dataclass(frozen=True, slots=True)
class Weights:
    """The mixer's weights behind the first projection, and the copies that autocast reads."""

    stored: tuple[Value, ...]
    read: tuple[Value, ...]
    #: Read by the kernels as they are: the convolution's, the time step's bias and the skip.
    kept: tuple[Value, ...]


def inner_kernel(ops: Ops, style: Style, mode: Mode, joint: Value, decay: Value) -> Value:
    """MambaInnerFn: everything behind the first projection is one node of the graph.

    It saves the projected states, what is projected from the convolved ones and the scan's result;
    it convolves again and projects the time step again in the backward pass.
    """
    tape, width = ops.tape, ops.types.compute
    weights = _weights(ops, style)
    laid = ops.copy(joint)
    with tape.within("recurrence"):
        conv, step, b, c, scanned, gated = (
            tape.value(shape, width, needs_grad=False)
            for shape in (CHANNELS, CHANNELS, WEIGHTS, WEIGHTS, CHANNELS, CHANNELS)
        )
        rows = tape.value(("B", "S", "MX"), width, needs_grad=False)
        written = tape.value(WRITTEN, FP32, needs_grad=False)
    tape.record((laid,), (conv,))
    _read_in_rows(ops, mode, conv, rows)
    tape.record((rows,), (step, b, c))
    tape.record((laid, conv, step, b, c, decay), (scanned, written, gated))
    out = tape.value(("B", "S", "H"), width, needs_grad=True)
    saves = (laid, rows, b, c, scanned, written, decay, *weights.read)
    if not mode.one_sample:
        copy = tape.value(CHANNELS, width, needs_grad=False)
        tape.record((gated,), (copy,))
        gated = copy

    def backward(run: Backward) -> None:
        if run.take(out) is not None:
            _inner_backward(run, style, mode, laid, decay, weights, width)

    inputs = (laid, gated, decay, *weights.stored, *weights.kept)
    tape.record(inputs, (out,), saves=saves, backward=backward)
    return out


def _weights(ops: Ops, style: Style) -> Weights:
    """In the order of their gradients; an adapter on them has no part in the pass."""
    biases: list[Value] = [ops.weight(("MI",))] if style.convolution_bias else []
    shapes: list[tuple[str, Shape]] = [
        ("mixer-out", ("H", "MI")),
        ("dt-proj", ("MI", "MR")),
        ("x-proj", ("MX", "MI")),
    ]
    stored = tuple(ops.weight(shape) for _, shape in shapes)
    adapted = frozenset() if ops.types.adapter is None else ops.types.adapter.targets
    for name, (rows, columns) in shapes:
        if name in adapted:
            ops.adapter_weight(("AR", columns))
            ops.adapter_weight((rows, "AR"))
    autocast = ops.types.autocast
    read = tuple(ops.cast(w, ops.types.compute) for w in stored) if autocast else stored
    if style.mixer_bias:
        biases.append(ops.weight(("H",)))
    if style.mixer_norms == "plain":
        buffers: tuple[str, ...] = ("MI", "MN", "MN")
        ops.tape.buffers += [((name,), ops.types.weight) for name in buffers]
    kept = (ops.weight(("MI", "MT")), ops.weight(("MI",)), ops.weight(("MI",)), *biases)
    return Weights(stored, read, kept)


def _read_in_rows(ops: Ops, mode: Mode, conv: Value, rows: Value) -> None:
    """Channels first are copied token by token, but of one sample."""
    if mode.one_sample:
        ops.tape.record((conv,), (rows,))
        return
    copy = ops.tape.value(conv.shape, conv.itemsize, needs_grad=False)
    ops.tape.record((conv,), (copy,))
    ops.tape.record((copy,), (rows,))


def _inner_backward(
    run: Backward,
    style: Style,
    mode: Mode,
    laid: Value,
    decay: Value,
    weights: Weights,
    width: int,
) -> None:
    """The node's own temporaries, in the order of its backward method."""

    def fresh(shape: Shape = CHANNELS, itemsize: int = width) -> int:
        return run.new(shape, itemsize)

    fresh()  # convolved again
    step = fresh()
    if style.mixer_norms == "plain":
        copies = [fresh() for _ in range(2)]
        run.free(step)
        run.free(copies[0])
    run.give(laid, run.like(laid))
    fresh()  # of what was gated
    conv_grad, _ = fresh(), fresh()
    of_weights = [fresh(WEIGHTS, FP32) for _ in range(2)]
    run.give(decay, run.like(decay))
    fresh()  # gated again
    out, step_weight, rows_weight = zip(weights.stored, weights.read, strict=True)
    _give_weight(run, *out)
    fresh(("B", "S", "MX"))
    for grad in of_weights:
        run.free(grad)
    _give_weight(run, *step_weight)
    if not mode.one_sample:
        # Channels first are laid out anew, the gradient's copy in its place.
        fresh()
        run.free(conv_grad)
        copy = fresh()
        _give_weight(run, *rows_weight)
        run.free(copy)
    else:
        _give_weight(run, *rows_weight)
    for value in weights.kept:
        run.give(value, run.like(value))


def _give_weight(run: Backward, target: Value, of: Value) -> None:
    """A gradient in the type that was read; it is made where the weight is frozen, too."""
    run.give_as(target, of, run.new(of.shape, of.itemsize, "gradients"))


def scan_kernel(
    ops: Ops, x: Value, step: Value, decay: Value, b: Value, c: Value, gate: Value
) -> tuple[Value, Value]:
    """SelectiveScanFn: reads channels first, of which it makes and saves copies.

    The last state is a view of those written down.
    """
    tape, width = ops.tape, x.itemsize
    laid = [tape.value(value.shape, value.itemsize, needs_grad=False) for value in (x, b, c, gate)]
    tape.record((x, b, c, gate), tuple(laid))
    scanned = tape.value(CHANNELS, width, needs_grad=False)
    written = tape.value(WRITTEN, FP32, needs_grad=False)
    out = tape.value(CHANNELS, width, needs_grad=True)

    def backward(run: Backward) -> None:
        if run.take(out) is None:
            return
        run.new(CHANNELS, width)
        for value in (x, step, decay, gate):
            run.give(value, run.like(value))
        for value in (b, c):
            run.give_as(value, _wide(value), run.new(value.shape, FP32))

    tape.record(
        (x, step, decay, b, c, gate, *laid),
        (out, scanned, written),
        saves=(step, decay, *laid, scanned, written),
        backward=backward,
    )
    return out, written


def _wide(value: Value) -> Value:
    return Value(value.storage, value.shape, FP32, value.needs_grad)
