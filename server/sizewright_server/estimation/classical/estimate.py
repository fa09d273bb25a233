"""The host estimate of a fit: phases, their parts, and the peak."""

from __future__ import annotations

from dataclasses import replace

from sizewright_server.estimation.classical import (
    distances,
    histogram_boosting,
    lightgbm,
    linear,
    matrices,
    meta,
    preprocessing,
    regression,
    tabulated,
    trees,
    xgboost,
)
from sizewright_server.estimation.classical.batches import check_batches, is_streamed
from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.dataset import table_parts
from sizewright_server.estimation.classical.files import file_parts
from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.parts import (
    EXACT,
    Moment,
    best_bytes,
    heaviest,
    part,
    total,
)
from sizewright_server.estimation.classical.pools import pooled_moments
from sizewright_server.estimation.classical.registry import steps_of
from sizewright_server.estimation.memory import MemoryEstimate, Part, Phase, PoolEstimate
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.workload import Layout

#: Importing these modules registers their estimators.
FORMULA_MODULES = (
    distances,
    histogram_boosting,
    lightgbm,
    linear,
    matrices,
    meta,
    preprocessing,
    regression,
    tabulated,
    trees,
    xgboost,
)
INDEX_BYTES = 8
#: Beyond this, sums would no longer fit the 64 bits of the answer.
LARGEST_BYTES = 2**62
_FIRST_FIT = {
    "scikit-learn": "sklearn_first_fit",
    "xgboost": "xgboost_first_fit",
    "lightgbm": "lightgbm_first_fit",
}


def process_parts(library: str) -> tuple[Part, ...]:
    """The process before it has a table."""
    return (constant("process", library).part("process", "interpreter and imported libraries"),)


def estimate_fit(job: FitJob) -> MemoryEstimate:
    """Peak host memory of a job in its own process. Raises UnsupportedWorkload.

    Phases are `read` (the table is there) and one or more for each operation; the truth is
    compared with the largest.
    """
    check_batches(job)
    if job.pool is not None:
        pooled = pooled_moments(job, job.pool, process_parts(job.library))
        return host_estimate(
            pooled, _title(job), f"a node with {job.pool.workers_per_node} workers"
        )
    first = constant("process", _FIRST_FIT[job.library]).part("first-fit", "threads, lazy imports")
    process = process_parts(job.library)
    held = (*process, *table_parts(job.table))
    moments = [*_reading(job, process), Moment("read", held)]
    if job.test_share:
        moments.append(Moment("split", (*held, *_split(job))))
        held = (*(process if job.frees_table else held), *_split(job))
        job = job.on(replace(job.table, rows=max(1, int(job.table.rows * (1 - job.test_share)))))
    steps = steps_of(job)
    asked = set(job.operations)
    if asked & {"fit", "fit-transform"}:
        freed = held if not job.frees_table else tuple(p for p in held if p.name != "features")
        for each in steps.fit:
            kept = freed if each.name == "fit-boosting" else held
            moments.append(Moment(each.name, (*kept, first, *each.parts)))
    for name in ("transform", "predict", "predict-proba"):
        if name in asked or (name == "transform" and "fit-transform" in asked):
            phase = "predict" if name == "predict-proba" else name
            moments.append(Moment(phase, (*held, first, *steps.model, *steps.predict)))
    return host_estimate(tuple(moments), _title(job), _scope(job))


def _title(job: FitJob) -> str:
    return f"{job.library} {job.class_name}"


def _reading(job: FitJob, process: tuple[Part, ...]) -> tuple[Moment, ...]:
    """The peak of reading the table's file, where there is one."""
    if job.file is None:
        return ()
    return (Moment("read-file", (*process, *file_parts(job.table, job.file))),)


def _split(job: FitJob) -> tuple[Part, ...]:
    """Training and test rows, which are both copies, and the order they were drawn in."""
    table = job.table
    # A stream is split by its files: nothing is copied.
    matrix = 0 if is_streamed(job) else table.matrix_bytes()
    size = matrix + table.rows * 2 * INDEX_BYTES
    text = "training rows + test rows, labels and indices"
    source = "scikit-learn: model_selection/_split.py train_test_split"
    return (part("split-rows", size, text, f"{size:,} B", source, EXACT),)


def host_estimate(moments: tuple[Moment, ...], title: str, scope: str) -> MemoryEstimate:
    """An estimate with a host pool alone; its peak is the heaviest moment's total.

    A peak's interval holds every moment's, since another than the heaviest may turn out to be it.
    """
    phases = tuple(Phase(each.name, total(each.parts), each.parts) for each in moments)
    if max(phase.total.high_bytes for phase in phases) >= LARGEST_BYTES:
        words = f"needs more than {LARGEST_BYTES:,} bytes, which no machine could address"
        raise UnsupportedWorkload(Violation("workload.dataset", words))
    peak = heaviest(moments)
    worst = total(peak.parts)
    widened = type(worst)(
        max(phase.total.low_bytes for phase in phases),
        worst.best_bytes,
        max(phase.total.high_bytes for phase in phases),
    )
    low = min(widened.low_bytes, widened.best_bytes)
    span = type(worst)(low, widened.best_bytes, widened.high_bytes)
    pool = PoolEstimate("host", scope, phases, peak.name, span)
    return MemoryEstimate((pool,), Layout(), 1, 0, 0, title)


def _scope(job: FitJob) -> str:
    return "process tree" if job.workers() > 1 else "process"


__all__ = ["best_bytes", "estimate_fit", "host_estimate", "process_parts"]
