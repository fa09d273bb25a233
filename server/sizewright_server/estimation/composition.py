"""What is live at a phase's peak, by part: the same walk as the timeline, for one layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.profile import Pass
from sizewright_server.estimation.timeline import PhasePeak, Stage


@dataclass(slots=True)
class Composition:
    """Bytes by part at one instant, and which block of how many it is in."""

    bytes_by_part: dict[str, int] = field(default_factory=dict)
    segment: str = ""
    instance: int = 0
    instances: int = 1


def compose(
    peak: PhasePeak, stages: Sequence[Stage], segments: Mapping[str, Segment], column: int
) -> Composition:
    """The parts at a phase's peak in a column, resident bytes aside."""
    index = int(peak.stage[column])
    held: dict[str, int] = defaultdict(int)
    for stage in stages[:index]:
        count = int(stage.count[column])
        _add(held, _left(stage, segments[stage.segment], column), count)
        held[stage.after_part] += count * int(stage.after_bytes[column])
    if index >= len(stages):
        return Composition(_positive(held), "optimizer", 0, 1)
    stage = stages[index]
    count = int(stage.count[column])
    before = count - 1 if int(peak.at_last[column]) else 0
    _add(held, _left(stage, segments[stage.segment], column), before)
    held[stage.after_part] += before * int(stage.after_bytes[column])
    _add(held, _at_peak(stage, segments[stage.segment], column), 1)
    held[stage.during_part] += int(stage.during_bytes[column])
    return Composition(_positive(held), stage.segment, before, count)


def _left(stage: Stage, segment: Segment, column: int) -> dict[str, int]:
    return _parts(stage, segment, stage.events, column)


def _at_peak(stage: Stage, segment: Segment, column: int) -> dict[str, int]:
    live = np.cumsum(stage.events.signs * stage.sizes[stage.events.storages, column])
    if not len(live) or live.max() <= 0:
        return {}
    stop = int(live.argmax()) + 1
    until = Pass(stage.events.signs[:stop], stage.events.storages[:stop])
    return _parts(stage, segment, until, column)


def _parts(stage: Stage, segment: Segment, events: Pass, column: int) -> dict[str, int]:
    """Bytes by part; sums of whole bytes are exact in float64 far beyond any memory."""
    program = segment.program
    moved = events.signs * stage.sizes[events.storages, column]
    parts = program.part_of_storage[events.storages]
    sums = np.bincount(parts, weights=moved, minlength=len(program.part_names))
    pairs = zip(program.part_names, sums.astype(np.int64).tolist(), strict=True)
    return {name: size for name, size in pairs if size}


def _add(total: dict[str, int], parts: Mapping[str, int], times: int) -> None:
    for name, size in parts.items():
        total[name] += times * size


def _positive(parts: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in parts.items() if size}
