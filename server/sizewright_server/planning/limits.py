"""The largest batch, length and number of rows with which a workload still fits a machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.estimation.classical.cpu_network import CpuWorkload
from sizewright_server.estimation.classical.prepared import FitWorkload
from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.serving.run import ServingRun, ServingWorkload
from sizewright_server.estimation.workload import Inference, Training, Workload
from sizewright_server.planning.machines import check_nodes, replayed
from sizewright_server.planning.plan import Constraints, FitLimit, worst
from sizewright_server.planning.variants import Prepare

#: Parts of a number that are told apart by replays.
FINENESS = 64
#: Doubling stops here; nobody asks for more sequences, or for longer ones, on one machine.
MOST = 2**24
MOST_ROWS = 2**44


@dataclass(frozen=True, slots=True)
class _Knob:
    """A number of the request: its path, what it says, and the workload with another value."""

    field: str
    stated: int
    most: int
    turned: Callable[[int], AnyWorkload]


def limits(
    workload: AnyWorkload,
    prepare: Prepare,
    target: InstanceType | Machine,
    nodes: int,
    constraints: Constraints,
    *,
    fits_as_stated: bool = False,
) -> tuple[FitLimit, ...]:
    """The largest value of each number that grows memory, all else as stated.

    First by the bound without a replay, which grows with the number as a replay need not; then as
    far beyond as a replay still fits, to a sixty-fourth of the number. With `fits_as_stated` a
    replay has shown that the stated ones fit, and none is below.
    """

    def fits(knob: _Knob, again: bool, value: int) -> bool:
        try:
            prepared = prepare(knob.turned(value))
        except UnsupportedWorkload:
            return False
        choice = check_nodes(prepared, target, [nodes], constraints).choice
        if choice is not None and again:
            choice = replayed(choice, target, constraints.headroom)
        return choice is not None and worst(tuple(p.verdict for p in choice.pools)) == "fits"

    found = []
    for knob in _knobs(workload):
        limit = _largest(knob, partial(fits, knob, False))
        if fits_as_stated:
            limit = replace(limit, largest=max(limit.largest, limit.stated))
        if not limit.at_least and isinstance(workload, Workload):
            beyond = _beyond(limit.largest, partial(fits, knob, True))
            limit = replace(limit, largest=beyond)
        found.append(limit)
    return tuple(found)


def _beyond(low: int, fits: Callable[[int], bool]) -> int:
    """The last that fits on the way from one that does to twice as much."""
    high = 2 * low + 1 if low else 2
    while high - low > max(low // FINENESS, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _largest(knob: _Knob, fits: Callable[[int], bool]) -> FitLimit:
    """Doubles from what is stated (or halves), then bisects: memory grows with the number."""
    low, high = 0, knob.stated
    while high <= knob.most and fits(high):
        low, high = high, high * 2
    if high > knob.most:
        return FitLimit(knob.field, knob.stated, low, at_least=True)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return FitLimit(knob.field, knob.stated, low, at_least=False)


def _knobs(workload: AnyWorkload) -> list[_Knob]:
    if isinstance(workload, FitWorkload):
        return [
            _Knob(
                "workload.dataset.rows",
                workload.job.table.rows,
                MOST_ROWS,
                lambda value: _with_rows(workload, value),
            )
        ]
    if isinstance(workload, KerasWorkload):
        section = "training.micro_batch" if workload.training else "inference.batch"
        name = f"workload.{section}"
        return [_Knob(name, workload.batch, MOST, lambda value: replace(workload, batch=value))]
    run = workload.run
    if isinstance(run, Training):
        return [_knob(workload, "training", name) for name in ("micro_batch", "seq_len")]
    names = ["batch", "input_tokens"]
    if isinstance(run, Inference | ServingRun) and run.new_tokens:
        names.append("new_tokens")
    return [_knob(workload, "inference", name) for name in names]


def _knob(workload: Workload | CpuWorkload | ServingWorkload, section: str, name: str) -> _Knob:
    def turned(value: int) -> Workload | CpuWorkload | ServingWorkload:
        changed: dict[str, Any] = {name: value}
        if isinstance(workload, ServingWorkload):
            return replace(workload, run=replace(workload.run, **changed))
        return replace(workload, run=replace(workload.run, **changed))

    stated = max(int(getattr(workload.run, name)), 1)
    return _Knob(f"workload.{section}.{name}", stated, MOST, turned)


def _with_rows(workload: FitWorkload, rows: int) -> FitWorkload:
    return replace(workload, job=workload.job.on(replace(workload.job.table, rows=rows)))
