"""How far the moving part of a step may be from its schedule, by the techniques a run uses.

The shares are data (`data/doubts.json`), each with its source.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.generic import generic_shares
from sizewright_server.estimation.modeling import loss_kernel
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.timeline import PhasePeak
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.workload import Training

if TYPE_CHECKING:
    from sizewright_server.estimation.inference import InferenceGroup

FUSED_LOSSES = ("fused", "fused-fp32", "tiled", "fused-linear", "cut")
NARROW = ("fp8", "mxfp8", "nvfp4")


@cache
def _table() -> dict[str, tuple[float, float]]:
    table = data_of("sizewright_server.estimation", "doubts")
    return {
        name: (float(entry["low"]), float(entry["high"]))
        for name, entry in table.items()
        if not name.startswith("_")
    }


@lru_cache(maxsize=256)
def doubt_shares(run: Training) -> tuple[float, float]:
    """Shares of the moving bytes that a run may hold less, and more."""
    base, kernels = run.base_weights, run.kernels
    fused = "fused" in (kernels.norm, kernels.mlp, kernels.rope)
    other = not run.modeling_code.startswith("transformers")
    applies = {
        "other-code": other,
        "preference": run.preference is not None,
        "quantized-base": base is not None and base.format not in ("fp32", "bf16", "fp16"),
        "adapter": run.adapter is not None,
        "compiled": kernels.compile != "none",
        "fused-kernels": fused or loss_kernel(run) in FUSED_LOSSES,
        "narrow-products": run.precision in NARROW,
        "lengths-unknown": run.seq_len_is_limit,
        "lengths-vary": bool(run.variable_lengths),
    }
    used = [_table()[name] for name, holds in applies.items() if holds]
    return min(0.8, sum(low for low, _ in used)), sum(high for _, high in used)


def phase_doubt(group: TrainingGroup | InferenceGroup, peak: PhasePeak) -> tuple[Column, Column]:
    """Bytes a phase may hold less, and more, than its schedule says."""
    less, more = group.doubt(peak.phase)
    if group.architecture.generic:
        low, high = generic_shares()
        less = less + (peak.peak_bytes * low).astype(np.int64)
        more = more + (peak.peak_bytes * high).astype(np.int64)
    other = group.peaks_without_kernels.get(peak.phase)
    if other is not None:
        less = less + np.maximum(peak.peak_bytes - other, 0)
        more = more + np.maximum(other - peak.peak_bytes, 0)
    if not isinstance(group, TrainingGroup):
        return less, more
    low, high = doubt_shares(group.training)
    if group.runs_recurrence_kernels:
        nets = group.architecture.style.mixer.startswith("delta-net")
        of_kernels = _table()["delta-net-kernels" if nets else "recurrence-kernels"]
        low, high = low + of_kernels[0], high + of_kernels[1]
    if not (low or high):
        return less, more
    moving = np.maximum(peak.peak_bytes - group.resident.total, 0)
    return less + (moving * low).astype(np.int64), more + (moving * high).astype(np.int64)
