"""GPU memory of XGBoost (`device: cuda`) and LightGBM (`device_type: cuda` or `gpu`).

Symbols: n rows, p columns, b bins, k outputs.
"""

from __future__ import annotations

import math

from sizewright_server.estimation.classical import lightgbm, xgboost
from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.linear import outputs
from sizewright_server.estimation.classical.parts import EXACT, Doubt, part, total
from sizewright_server.estimation.memory import GpuReadings, Part, Phase, PoolEstimate
from sizewright_server.estimation.runtime import DeviceOverhead

#: A batch of the table and its sketch while bins are found: XGBoost issue 7527 saw 6 GB on the GPU
#: for 8 GB of float32, 2 GB of which are the bins.
STAGED_SHARE = 0.5
STAGED = Doubt(0.4, 2.2, "low")


def device_parts(job: FitJob) -> tuple[Part, ...]:
    """Bins, row arrays, histograms, and the staging of the table."""
    return _lightgbm(job) if job.library == "lightgbm" else _xgboost(job)


def _xgboost(job: FitJob) -> tuple[Part, ...]:
    """The ELLPACK page packs a bin's number in as few bits as all bins need."""
    table, bins, width = job.table, job.count("max_bin", 256), outputs(job.table)
    dense = not table.sparse and table.missing_share == 0
    symbols = bins + 1 if dense else bins * table.columns + 1
    bits = math.ceil(math.log2(max(2, symbols)))
    stored = table.stored_elements if table.sparse else table.elements
    packed = stored * bits // 8
    each = 8 * width + 4 * width + 8
    return (
        part(
            "bins",
            packed,
            "elements x bits of a bin / 8",
            f"{stored:,} x {bits} bits",
            "XGBoost src/data/ellpack_page.cu",
            EXACT,
        ),
        part(
            "row-arrays",
            table.rows * each,
            "n x (k x (gradients 8 + predictions 4) + positions 8)",
            f"{table.rows:,} x {each} B",
            "XGBoost src/tree/gpu_hist",
        ),
        xgboost.histograms(job),
        _staged(job, "XGBoost issue 7527"),
    )


def _lightgbm(job: FitJob) -> tuple[Part, ...]:
    """A byte a bin, gradients as float pairs, and histograms of every leaf."""
    table, width = job.table, outputs(job.table)
    size = table.elements * (1 if job.count("max_bin", 255) <= 256 else 2)
    each = 8 * width + 8
    return (
        part(
            "bins",
            size,
            "n x p x bytes of a bin",
            f"{size:,} B",
            "LightGBM src/treelearner/cuda",
            EXACT,
        ),
        part(
            "row-arrays",
            table.rows * each,
            "n x (8 k + 8)",
            f"{table.rows:,} x {each} B",
            "LightGBM src/treelearner/cuda",
        ),
        lightgbm.histograms(job),
        _staged(job, "the table is binned on the host and copied"),
    )


def _staged(job: FitJob, source: str) -> Part:
    size = int(STAGED_SHARE * job.table.stored_elements * 4)
    text = "a batch of the table as float32, and its sketch"
    return part("staged-table", size, text, f"0.5 x {2 * size:,} B", source, STAGED)


def gpu_pool(job: FitJob, overhead: DeviceOverhead) -> PoolEstimate:
    """The pool of the one GPU."""
    parts = device_parts(job)
    allocated = total(parts)
    runtime = overhead.parts(0, 1)
    device = allocated + total(runtime)
    phase = Phase("fit", device, (*parts, *runtime))
    readings = GpuReadings(allocated, allocated, device)
    return PoolEstimate("gpu", "the one GPU", (phase,), "fit", device, readings)
