"""The peaks of a group's layouts on the GPU, with their bounds: allocated and reserved."""

from __future__ import annotations

import numpy as np

from sizewright_server.estimation.columns import GpuColumns
from sizewright_server.estimation.doubts import phase_doubt
from sizewright_server.estimation.inference import InferenceGroup
from sizewright_server.estimation.reserved import reserved, reserved_shares
from sizewright_server.estimation.timeline import PhasePeak, run_timeline
from sizewright_server.estimation.training import TrainingGroup

#: Tensors too small to be listed, whatever the run: two segments of the small pool.
SMALL_BYTES = 2 * 2**21


def gpu_columns(group: TrainingGroup | InferenceGroup) -> GpuColumns:
    """Allocated and reserved peaks of a group's layouts."""
    if isinstance(group, TrainingGroup):
        schedule = group.schedule
        resident = schedule.resident.total
        peaks, _ = run_timeline(resident, schedule.stages)
        step = resident + schedule.step_bytes + schedule.step_temporary
        nowhere = np.full_like(step, len(schedule.stages))
        peaks.append(PhasePeak("optimizer-step", step, nowhere, np.zeros_like(step)))
        if group.load_bytes.any():
            peaks.append(PhasePeak("load", group.load_bytes, nowhere, np.zeros_like(step)))
    else:
        resident = group.resident
        peaks, _ = run_timeline(resident, group.all_stages)
    best = np.max([peak.peak_bytes for peak in peaks], axis=0)
    doubts = [(peak.peak_bytes, *phase_doubt(group, peak)) for peak in peaks]
    lower = np.max([at - less for at, less, _ in doubts], axis=0)
    dynamic = np.maximum(best - resident, 0)
    small = (dynamic * reserved_shares()["small-tensors"][2]).astype(np.int64) + SMALL_BYTES
    lower = np.maximum(lower - small, np.minimum(lower, resident))
    upper = np.max([at + more for at, _, more in doubts], axis=0) + small
    held = reserved(group, best, upper, dynamic)
    ahead = 0 if isinstance(group, InferenceGroup) else group.working.ahead_of_time()
    return GpuColumns(
        phases=tuple(peaks),
        allocated_low=lower,
        allocated_best=best,
        allocated_high=upper,
        reserved_best=held.best,
        reserved_high=held.high + ahead,
    )
