"""The explained tree of one layout: every phase's parts with formula, numbers and source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sizewright_server.estimation.composition import Composition, Passed
from sizewright_server.estimation.explain_host import explain_host
from sizewright_server.estimation.explain_notices import notices_of
from sizewright_server.estimation.memory import (
    ByteRange,
    Confidence,
    GpuReadings,
    MemoryEstimate,
    Part,
    Phase,
    PoolEstimate,
    StageReadings,
    total_of,
)
from sizewright_server.estimation.part_texts import PART_TEXTS, PartText, resident_parts
from sizewright_server.estimation.peak_reasons import reason_of, scope_of
from sizewright_server.estimation.replay import replayed_reserved_bytes
from sizewright_server.estimation.reserved import (
    around_replay,
    kind_of,
    left_by_lengths,
    needed,
)
from sizewright_server.estimation.runtime import DeviceOverhead
from sizewright_server.estimation.timeline import PhasePeak
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.workload import Layout

if TYPE_CHECKING:
    from sizewright_server.estimation.columns import GpuColumns
    from sizewright_server.estimation.estimator import PreparedWorkload
    from sizewright_server.estimation.inference import InferenceGroup

NOTHING = ByteRange(0, 0, 0)


def explain(
    prepared: PreparedWorkload,
    layout: Layout,
    ranks_per_node: int,
    overhead: DeviceOverhead,
    columns: GpuColumns,
    group: TrainingGroup | InferenceGroup,
    *,
    replay: bool,
) -> MemoryEstimate:
    """Puts the pools together."""
    gpu = _gpu_pool(prepared, layout, overhead, columns, group, replay=replay)
    host = explain_host(prepared.workload, prepared.host_states(layout), ranks_per_node)
    return MemoryEstimate(
        pools=(gpu, host),
        layout=layout,
        ranks_per_node=ranks_per_node,
        parameter_count=prepared.parameter_count,
        trainable_parameter_count=prepared.trainable_parameter_count,
        architecture=prepared.architecture,
        notices=notices_of(prepared),
    )


def _gpu_pool(
    prepared: PreparedWorkload,
    layout: Layout,
    overhead: DeviceOverhead,
    columns: GpuColumns,
    group: TrainingGroup | InferenceGroup,
    *,
    replay: bool,
) -> PoolEstimate:
    shown, every = group.shown, range(len(columns.allocated_best))
    allocated, held = _readings(columns, every)
    replay, reserved = replay and kind_of(group) != "expandable", held
    if replay:
        exact = replayed_reserved_bytes(group, allocated.best_bytes)
        held = around_replay(group, exact, allocated, reserved)
        reserved = needed(held, reserved)
    text = "allocator-slack" if replay else "allocator-slack-bound"
    runtime = overhead.parts(*prepared.collectives(layout))
    peaks = [int(phase.peak_bytes[shown]) for phase in columns.phases]
    peak_index = peaks.index(max(peaks))
    there, passes = resident_parts(prepared, group), Passed(group)
    phases = tuple(
        _phase(there, passes, columns, i, (reserved, text) if i == peak_index else None, runtime)
        for i, peak in enumerate(peaks)
        if peak
    )
    device = reserved + total_of(runtime)
    inside = overhead.workspaces.size if overhead.known else ByteRange(0, 0, 0)
    seen = _seen(group, held, allocated, _room(overhead, runtime))
    return PoolEstimate(
        pool="gpu",
        scope=scope_of(layout, group),
        peak_reason=reason_of(group, columns.phases[peak_index]),
        phases=phases,
        peak_phase=columns.phases[peak_index].phase,
        peak=device,
        gpu=GpuReadings(allocated + inside, seen + inside, seen + total_of(runtime)),
        stages=tuple(
            StageReadings(number, *(one + inside for one in _readings(columns, [column])))
            for column, number in enumerate(_stages(group))
        ),
    )


def _room(overhead: DeviceOverhead, runtime: tuple[Part, ...]) -> ByteRange | None:
    """What the device has for the allocator, least and most; None where it is not known."""
    if overhead.capacity_bytes is None:
        return None
    beside = total_of(runtime)
    bounds = (beside.high_bytes, beside.best_bytes, beside.low_bytes)
    return ByteRange(*(max(0, overhead.capacity_bytes - size) for size in bounds))


def _seen(
    group: TrainingGroup | InferenceGroup,
    reserved: ByteRange,
    allocated: ByteRange,
    room: ByteRange | None,
) -> ByteRange:
    """Bytes the allocator is seen to hold, with what batches of other lengths leave cached.

    A device that is full makes it give cached blocks back: a run whose tensors fit is not seen to
    hold more than the device has.
    """
    held = reserved + left_by_lengths(group)
    if room is None or allocated.best_bytes > room.best_bytes:
        return held
    most = max(allocated.best_bytes, min(held.best_bytes, room.best_bytes))
    return ByteRange(
        min(held.low_bytes, most), most, max(most, min(held.high_bytes, room.high_bytes))
    )


def _stages(group: TrainingGroup | InferenceGroup) -> list[int]:
    """The numbers of the pipeline stages that are columns of a group of one layout."""
    if not isinstance(group, TrainingGroup) or group.positions == ("only",):
        return []
    numbers: list[int] = group.stage.tolist()
    return numbers


def _readings(columns: GpuColumns, which: Sequence[int]) -> tuple[ByteRange, ByteRange]:
    """Allocated and reserved bytes, each reading's highest over some columns."""
    low, best, high, reserved, most = (
        max(int(column[at]) for at in which)
        for column in (
            columns.allocated_low,
            columns.allocated_best,
            columns.allocated_high,
            columns.reserved_best,
            columns.reserved_high,
        )
    )
    # At least half of what is expected beyond live tensors is always held.
    least = low + max(0, reserved - best) // 2
    return ByteRange(low, best, high), ByteRange(least, reserved, most)


def _phase(
    there: Sequence[Part],
    passes: Passed,
    columns: GpuColumns,
    number: int,
    held: tuple[ByteRange, str] | None,
    runtime: tuple[Part, ...],
) -> Phase:
    """One phase; the highest is given what is reserved, and how that is known: its slack."""
    peak, shown = columns.phases[number], passes.group.shown
    less, more = (int(column[shown]) for column in columns.doubts[number])
    best = int(peak.peak_bytes[shown])
    if peak.phase == "load":
        there = [part for part in there if part.name == "weights"]
    parts = [*there, *_moving(passes, peak)]
    rest = best - sum(part.size.best_bytes for part in parts)
    if rest:
        parts.append(_named("other", rest, f"{rest:,} B"))
    parts.append(_doubt(less, more))
    allocated = ByteRange(best - less, best, best + more)
    if held is not None:
        reserved, known_by = held
        usual = max(0, reserved.best_bytes - allocated.best_bytes)
        slack = ByteRange(
            min(usual, max(0, reserved.low_bytes - allocated.low_bytes)),
            usual,
            max(0, reserved.high_bytes - allocated.high_bytes),
        )
        parts.append(_slack(slack, PART_TEXTS[known_by]))
    parts += runtime
    kept = tuple(part for part in parts if part.size != NOTHING)
    return Phase(peak.phase, total_of(kept), kept)


def _moving(passes: Passed, peak: PhasePeak) -> list[Part]:
    """What comes and goes within the step, grouped: activations, gradients, caches, buffers."""
    group, found = passes.group, passes.composed(peak)
    at, where = group.shown, _where(found)
    sizes = dict(found.bytes_by_part)
    if isinstance(group, TrainingGroup) and peak.phase == "optimizer-step":
        sizes = group.step_parts()
    if isinstance(group, TrainingGroup) and peak.phase == "load":
        sizes = {"gathered-parameters": int(group.load_bytes[at] - group.resident.weights[at])}
    gradients = sizes.pop("gradients", 0) + sizes.pop("reduced-or-gathered", 0)
    parts = []
    if gradients:
        parts.append(_named("gradients", gradients, where))
    activations = {n: s for n, s in sizes.items() if PART_TEXTS[n].group == "activations"}
    if sum(activations.values()):
        children = tuple(_named(name, size, where) for name, size in activations.items())
        total = sum(activations.values())
        parts.append(_named("activations", total, where, children))
    for name, size in sizes.items():
        if name not in activations:
            parts.append(_named(name, size, where))
    return parts


def _where(found: Composition) -> str:
    if found.instances > 1:
        place = f"{found.instance + 1} of {found.instances}"
        return f"at {found.segment} {place} in the order of the pass"
    return f"at the {found.segment}"


def _named(name: str, size: int, numbers: str, parts: tuple[Part, ...] = ()) -> Part:
    text = PART_TEXTS[name]
    exact = ByteRange(size, size, size)
    return Part(name, exact, text.formula, numbers, text.source, text.confidence, parts)


def _doubt(less: int, more: int) -> Part:
    text = PART_TEXTS["kernel-doubt"]
    confidence: Confidence = "medium"
    return Part(
        "kernel-doubt",
        ByteRange(-less, 0, more),
        text.formula,
        f"-{less:,} B to +{more:,} B",
        text.source,
        confidence,
    )


def _slack(slack: ByteRange, text: PartText) -> Part:
    return Part(
        "allocator-slack",
        slack,
        text.formula,
        f"{slack.best_bytes:,} B",
        text.source,
        text.confidence,
    )
