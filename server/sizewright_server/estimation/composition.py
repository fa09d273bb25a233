"""What is live at a phase's peak, by part: the same walk as the timeline, for one layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sizewright_server.estimation.profile import Pass
from sizewright_server.estimation.timeline import PhasePeak, Stage

if TYPE_CHECKING:
    from sizewright_server.estimation.inference import InferenceGroup
    from sizewright_server.estimation.training import TrainingGroup


@dataclass(slots=True)
class Composition:
    """Bytes by part at one instant, and which block of how many it is in."""

    bytes_by_part: dict[str, int] = field(default_factory=dict)
    segment: str = ""
    instance: int = 0
    instances: int = 1


class Passed:
    """The passes of a group's column that is shown, and what each leaves behind, by part."""

    def __init__(self, group: TrainingGroup | InferenceGroup) -> None:
        self.group = group
        self._stages = group.all_stages
        self._segments = {segment.name: segment for segment in group.segments}
        self._left: dict[tuple[int, int], dict[str, int]] = {}

    def composed(self, peak: PhasePeak) -> Composition:
        """The parts at a phase's peak, resident bytes aside."""
        column, stages = self.group.shown, self._stages
        index = int(peak.stage[column])
        held: dict[str, int] = defaultdict(int)
        for number, stage in enumerate(stages[:index]):
            count = int(stage.count[column])
            _add(held, self._left_by(number), count)
            held[stage.after_part] += count * int(stage.after_bytes[column])
        if index >= len(stages):
            return Composition(_positive(held), "optimizer", 0, 1)
        stage = stages[index]
        count = int(stage.count[column])
        before = count - 1 if int(peak.at_last[column]) else 0
        _add(held, self._left_by(index), before)
        held[stage.after_part] += before * int(stage.after_bytes[column])
        _add(held, self._at_peak(stage), 1)
        held[stage.during_part] += int(stage.during_bytes[column])
        return Composition(_positive(held), stage.segment, before, count)

    def _left_by(self, number: int) -> dict[str, int]:
        """What a stage's pass leaves: phases follow each other, and blocks of one kind are alike,
        so that it is asked for again."""
        stage = self._stages[number]
        kind = (id(stage.events), id(stage.sizes))
        if kind not in self._left:
            self._left[kind] = self._parts(stage, stage.events)
        return self._left[kind]

    def _at_peak(self, stage: Stage) -> dict[str, int]:
        events, column = stage.events, self.group.shown
        live = np.cumsum(events.signs * stage.sizes[events.storages, column])
        if not len(live) or live.max() <= 0:
            return {}
        stop = int(live.argmax()) + 1
        return self._parts(stage, Pass(events.signs[:stop], events.storages[:stop]))

    def _parts(self, stage: Stage, events: Pass) -> dict[str, int]:
        """Bytes by part; sums of whole bytes are exact in float64 far beyond any memory."""
        program = self._segments[stage.segment].program
        moved = events.signs * stage.sizes[events.storages, self.group.shown]
        parts = program.part_of_storage[events.storages]
        sums = np.bincount(parts, weights=moved, minlength=len(program.part_names))
        pairs = zip(program.part_names, sums.astype(np.int64).tolist(), strict=True)
        return {name: size for name, size in pairs if size}


def _add(total: dict[str, int], parts: Mapping[str, int], times: int) -> None:
    for name, size in parts.items():
        total[name] += times * size


def _positive(parts: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in parts.items() if size}
