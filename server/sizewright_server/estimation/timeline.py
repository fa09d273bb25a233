"""Walks a schedule of stages and keeps the live bytes: the peak of every phase, per layout.

A stage is one pass over a segment, `count` times in a row. Within such a run the live bytes before
the i-th instance change by the same amount each time, so the run's peak is at its first or its last
instance: exact, without walking every layer. A count of 0 leaves the stage out of that layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.profile import Column, Pass
from sizewright_server.estimation.walks import Walk, walk_all


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
    at_last: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Course:
    """Stages in order as tables: a row per stage, a column per layout; fields as in `Stage`."""

    phases: tuple[str, ...]
    count: Column
    during_bytes: Column
    after_bytes: Column
    walks: Walk


def course_of(stages: Sequence[Stage]) -> Course:
    """The course of stages, their passes walked."""
    tables = {id(stage.sizes): stage.sizes for stage in stages}
    number = {key: at for at, key in enumerate(tables)}
    over = [number[id(stage.sizes)] for stage in stages]
    return Course(
        tuple(stage.phase for stage in stages),
        np.array([stage.count for stage in stages]),
        np.array([stage.during_bytes for stage in stages]),
        np.array([stage.after_bytes for stage in stages]),
        walk_all([stage.events for stage in stages], over, tuple(tables.values())),
    )


def run_timeline(start_bytes: Column, course: Course) -> list[PhasePeak]:
    """The peak of each phase in order."""
    count, walks = course.count, course.walks
    net = walks.delta_bytes + course.after_bytes
    drift = (count - 1) * net
    # Live bytes before each stage.
    live = np.empty_like(net)
    live[0] = start_bytes
    np.add((count[:-1] * net[:-1]).cumsum(axis=0), start_bytes, out=live[1:])
    peak = live + course.during_bytes + walks.peak_bytes + np.maximum(drift, 0)
    # A rank of a pipeline has not every stage.
    peak[count == 0] = 0
    phases: dict[str, list[int]] = {}
    for index, phase in enumerate(course.phases):
        phases.setdefault(phase, []).append(index)
    return [_phase_peak(phase, rows, peak, drift) for phase, rows in phases.items()]


def _phase_peak(phase: str, rows: list[int], peak: Column, drift: Column) -> PhasePeak:
    """The highest of a phase's stages, the first of several."""
    first = peak[rows].argmax(axis=0)
    stage = np.array(rows)[first]
    at = np.arange(len(stage))
    return PhasePeak(phase, peak[stage, at], stage, drift[stage, at] > 0)
