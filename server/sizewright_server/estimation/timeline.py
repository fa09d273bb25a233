"""Walks a schedule of stages and keeps the live bytes: the peak of every phase, per layout.

A stage is one pass over a segment, `count` times in a row. Within such a run the live bytes before
the i-th instance change by the same amount each time, so the run's peak is at its first or its last
instance: exact, without walking every layer. A count of 0 leaves the stage out of that layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sizewright_server.estimation.profile import Column, Pass, walk


@dataclass(frozen=True, slots=True)
class Stage:
    """`count` passes over a segment.

    `during_bytes` is held only while the stage runs (gathered parameters); `after_bytes` stays per
    instance beyond what the tape leaves (a gradient that was reduced to a shard is negative here).
    """

    phase: str
    segment: str
    events: Pass
    sizes: Column
    count: Column
    during_bytes: Column
    after_bytes: Column
    #: The part `during_bytes` counts in.
    during_part: str = "gathered-parameters"
    #: The part `after_bytes` counts in.
    after_part: str = "reduced-or-gathered"


@dataclass(frozen=True, slots=True)
class PhasePeak:
    """The highest live bytes of a phase: the stage it is in, and whether at its last instance."""

    phase: str
    peak_bytes: Column
    stage: Column
    at_last: Column


def run_timeline(start_bytes: Column, stages: Sequence[Stage]) -> tuple[list[PhasePeak], Column]:
    """The peak of each phase in order, and the live bytes at the end."""
    live = start_bytes
    peaks: dict[str, PhasePeak] = {}
    for index, stage in enumerate(stages):
        if not stage.count.any():
            # Another rank of the pipeline has it.
            nothing = np.zeros_like(live)
            first = PhasePeak(stage.phase, nothing, np.full_like(nothing, index), nothing)
            peaks.setdefault(stage.phase, first)
            continue
        result = walk(stage.events, stage.sizes)
        net = result.delta_bytes + stage.after_bytes
        drift = (stage.count - 1) * net
        peak = live + stage.during_bytes + result.peak_bytes + np.maximum(drift, 0)
        peak = np.where(stage.count > 0, peak, 0)
        at_last = (drift > 0).astype(np.int64)
        live = live + stage.count * net
        held = peaks.get(stage.phase)
        if held is None:
            peaks[stage.phase] = PhasePeak(stage.phase, peak, np.full_like(peak, index), at_last)
            continue
        higher = peak > held.peak_bytes
        peaks[stage.phase] = PhasePeak(
            stage.phase,
            np.where(higher, peak, held.peak_bytes),
            np.where(higher, index, held.stage),
            np.where(higher, at_last, held.at_last),
        )
    return list(peaks.values()), live
