"""Mamba-2's mixer in the kernels of mamba-ssm 2.3: MambaSplitConv1dScanCombinedFn.

What it makes and saves was read in its source (ops/triton/ssd_combined.py and the files of its
kernels) and traced with kernels that do nothing. Dimensions: `recurrent.py`.
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Shape, Value

CHANNELS: Shape = ("B", "S", "MI")
FILTERED: Shape = ("B", "S", "MC")
STEPS: Shape = ("B", "MH", "MLK")
STATES: Shape = ("B", "MK", "MI", "MN")
#: Scores of every two tokens of a chunk, which the heads of a group share.
PAIRS: Shape = ("B", "MK", "MG", "ML", "ML")
WEIGHTS: Shape = ("B", "S", "MGN")


def split_kernel(ops: Ops, style: Style, joint: Value, decay: Value) -> Value:
    """Everything behind the first projection is one node: it saves the projected states and the
    scan's result, and convolves and scans again in the backward pass."""
    tape, width = ops.tape, ops.types.compute
    stored, read = _out_weight(ops)
    kept = _kept_weights(ops, style)
    conv = tape.value(FILTERED, width, needs_grad=False)
    steps = [tape.value(STEPS, FP32, needs_grad=False) for _ in range(2)]
    wide = tape.value(STATES, FP32, needs_grad=False)
    states = tape.value(STATES, width, needs_grad=False)
    scores = tape.value(PAIRS, FP32, needs_grad=False)
    scanned, normed = (tape.value(CHANNELS, width, needs_grad=False) for _ in range(2))
    rate = tape.value(("B", "S", "MG"), FP32, needs_grad=False)
    tape.record((joint,), (conv,))
    tape.record((joint, decay), tuple(steps))
    tape.record((conv,), (wide,))
    tape.record((wide,), (states,))
    tape.record((conv,), (scores,))
    tape.record((scores, conv), (scanned,))
    tape.record((scanned, joint), (normed, rate))
    out = tape.value(("B", "S", "H"), width, needs_grad=True)

    def backward(run: Backward) -> None:
        if run.take(out) is None:
            return
        _backward(run, joint, width)
        run.give_as(stored, read, run.new(read.shape, width, "gradients"))
        for value in (decay, *kept):
            run.give(value, run.like(value))

    tape.record(
        (joint, decay, normed, stored, *kept),
        (out,),
        saves=(joint, scanned, rate, decay, read),
        backward=backward,
    )
    tape.hold(conv, states, *steps)
    return out


def chunk_kernel(ops: Ops, conv: Value, step: Value, decay: Value) -> tuple[Value, Value]:
    """mamba_chunk_scan_combined without gradients: the scan alone, behind another's filters; and
    the last state."""
    tape, width = ops.tape, conv.itemsize
    for _ in range(2):
        ops.weight(("MH",))
    steps = [tape.value(STEPS, FP32, needs_grad=False) for _ in range(2)]
    wide = tape.value(STATES, FP32, needs_grad=False)
    states = tape.value(STATES, width, needs_grad=False)
    last = tape.value(("B", "MI", "MN"), FP32, needs_grad=False)
    scores = tape.value(PAIRS, FP32, needs_grad=False)
    out = tape.value(CHANNELS, width, needs_grad=False)
    tape.record((step, decay), tuple(steps))
    tape.record((conv,), (wide,))
    tape.record((wide,), (states, last))
    tape.record((conv,), (scores,))
    tape.record((scores, conv, states), (out,))
    tape.hold(last, *steps)
    return out, last


def _out_weight(ops: Ops) -> tuple[Value, Value]:
    """The last projection's weight, and its copy under autocast; it is read as it is stored."""
    stored = ops.weight(("H", "MI"))
    adapter = ops.types.adapter
    if adapter is not None and "mixer-out" in adapter.targets:
        ops.adapter_weight(("AR", "MI"))
        ops.adapter_weight(("H", "AR"))
    return stored, ops.cast(stored, ops.types.compute) if ops.types.autocast else stored


def _kept_weights(ops: Ops, style: Style) -> tuple[Value, ...]:
    """The norm's, the filters', the skip's and the time step's."""
    shapes: list[Shape] = [("MC", "MT"), ("MH",), ("MH",)]
    shapes += [("MC",)] if style.convolution_bias else []
    shapes += [("H",)] if style.mixer_bias else []
    return (ops.weight(("MI",), module="norms"), *(ops.weight(shape) for shape in shapes))


def _backward(run: Backward, joint: Value, width: int) -> None:
    """The node's temporaries, in the order of its backward method."""
    for shape in (CHANNELS, FILTERED):
        run.new(shape, width)
    run.give(joint, run.like(joint))
    for shape in (FILTERED, CHANNELS, CHANNELS):
        run.new(shape, width)
    for _ in range(2):
        run.new(STEPS, FP32)
    run.new(PAIRS, FP32)
    scanned, passed = (run.new(STATES, FP32) for _ in range(2))
    run.free(scanned)
    given = run.new(STATES, FP32)
    for _ in range(2):
        run.new(STATES, width)
    run.free(given)
    run.free(passed)
    for shape in (WEIGHTS, WEIGHTS, PAIRS):
        several = run.new((*shape, "MSPLIT"), FP32)
        run.new(shape, FP32)
        run.free(several)
    for _ in range(4):
        run.new(STEPS, FP32)
