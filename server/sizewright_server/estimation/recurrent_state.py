"""What a recurrent layer keeps from one call to the next, and the one-token step that reads it.

transformers' LinearAttentionLayer (cache_utils.py) keeps the inputs under the convolution's taps in
their own type and the last state in fp32; both are made in the prefill and written to in place.
"""

from __future__ import annotations

from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Dim, Shape, Value

#: A state for each channel of every sequence.
ONE_STATE: Shape = ("B", "MI", "MN")
#: Tensors of a state's size that a step makes of decay, input and state (selective_state_update).
STEP_TENSORS = 4


def keep_taps(ops: Ops, mode: Mode, mixed: Value, channels: Dim, cached: list[Value]) -> None:
    """The convolution's latest inputs, as the prefill makes them for the steps after it."""
    _keep(ops, mode, mixed, ("B", channels, "MT"), mixed.itemsize, cached)


def keep_last(ops: Ops, mode: Mode, last: Value, cached: list[Value]) -> None:
    """A copy of the state behind the last token."""
    _keep(ops, mode, last, ONE_STATE, FP32, cached)


def _keep(ops: Ops, mode: Mode, of: Value, shape: Shape, width: int, cached: list[Value]) -> None:
    if mode.cache == "none" or mode.one_query:
        return
    with ops.tape.within("kv-cache"):
        kept = ops.tape.value(shape, width, needs_grad=False)
    ops.tape.record((of,), (kept,))
    cached.append(kept)


def one_step(ops: Ops, x: Value, channels: Dim) -> tuple[Value, Value]:
    """One token: the taps and what is new under them, and the state's temporaries; what comes out
    and the state, which is written in place."""
    tape = ops.tape
    under = tape.value(("B", channels, "MT"), x.itemsize, needs_grad=False)
    tape.record((x,), (under,))
    made = [tape.value(ONE_STATE, FP32, needs_grad=False) for _ in range(STEP_TENSORS)]
    out = tape.value(("B", "S", "MI"), x.itemsize, needs_grad=False)
    tape.record((under,), tuple(made))
    tape.record(tuple(made), (out,))
    return out, made[-1]
