"""The peaks of a group's layouts on the GPU, with their bounds: allocated and reserved."""

from __future__ import annotations

import numpy as np

from sizewright_server.estimation.columns import GpuColumns
from sizewright_server.estimation.doubts import phase_doubt
from sizewright_server.estimation.inference import InferenceGroup
from sizewright_server.estimation.reserved import reserved, reserved_shares
from sizewright_server.estimation.timeline import PhasePeak, course_of, run_timeline
from sizewright_server.estimation.training import TrainingGroup

#: Tensors too small to be listed, whatever the run: two segments of the small pool.
SMALL_BYTES = 2 * 2**21


def gpu_columns(group: TrainingGroup | InferenceGroup) -> GpuColumns:
    """Allocated and reserved peaks of a group's layouts."""
    if isinstance(group, TrainingGroup):
        schedule = group.schedule
        resident = schedule.resident.total
        peaks = run_timeline(resident, group.course)
        step = resident + schedule.step_bytes + schedule.step_temporary
        nowhere, never = (
            np.full_like(step, len(group.course.phases)),
            np.zeros(len(step), dtype=bool),
        )
        peaks.append(PhasePeak("optimizer-step", step, nowhere, never))
        if group.load_bytes.any():
            peaks.append(PhasePeak("load", group.load_bytes, nowhere, never))
    else:
        resident = group.resident
        peaks = run_timeline(resident, course_of(group.all_stages))
    doubts = tuple(phase_doubt(group, peak) for peak in peaks)
    at = np.array([peak.peak_bytes for peak in peaks])
    best = at.max(axis=0)
    lower = (at - [less for less, _ in doubts]).max(axis=0)
    dynamic = np.maximum(best - resident, 0)
    small = (dynamic * reserved_shares()["small-tensors"][2]).astype(np.int64) + SMALL_BYTES
    lower = np.maximum(lower - small, np.minimum(lower, resident))
    upper = (at + [more for _, more in doubts]).max(axis=0) + small
    held = reserved(group, best, upper, dynamic)
    ahead = 0 if isinstance(group, InferenceGroup) else group.working.ahead_of_time()
    return GpuColumns(
        phases=tuple(peaks),
        doubts=doubts,
        allocated_low=lower,
        allocated_best=best,
        allocated_high=upper,
        reserved_best=held.best,
        reserved_high=held.high + ahead,
    )
