"""The host estimate of a fit: phases, their parts, and the peak."""

from __future__ import annotations

from sizewright_server.estimation.classical import (
    distances,
    histogram_boosting,
    lightgbm,
    linear,
    matrices,
    meta,
    preprocessing,
    tabulated,
    trees,
    xgboost,
)
from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.dataset import table_parts
from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.parts import Moment, best_bytes, heaviest, total
from sizewright_server.estimation.classical.registry import steps_of
from sizewright_server.estimation.memory import MemoryEstimate, Part, Phase, PoolEstimate
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
    tabulated,
    trees,
    xgboost,
)
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
    steps = steps_of(job)
    first = constant("process", _FIRST_FIT[job.library]).part("first-fit", "threads, lazy imports")
    held = (*process_parts(job.library), *table_parts(job.table))
    moments = [Moment("read", held)]
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
    return host_estimate(tuple(moments), f"{job.library} {job.class_name}", _scope(job))


def host_estimate(moments: tuple[Moment, ...], title: str, scope: str) -> MemoryEstimate:
    """An estimate with a host pool alone; its peak is the heaviest moment's total.

    A peak's interval holds every moment's, since another than the heaviest may turn out to be it.
    """
    phases = tuple(Phase(each.name, total(each.parts), each.parts) for each in moments)
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
