"""What each technique makes of data, loaders and fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sizewright_server.estimation.classical.prepared import FitWorkload
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.workload import Workload
from sizewright_server.planning.changes import Change, Form, Rule

#: Density below which values with their indices take less than all values.
WORTH_SPARSE = 0.5


def _loader_workers(workload: AnyWorkload) -> Iterator[Form]:
    if isinstance(workload, Workload) and workload.host.loader_workers > 1:
        before = workload.host.loader_workers
        for after in sorted({before // 2, 1}, reverse=True):
            host = replace(workload.host, loader_workers=after)
            change = Change("workload.host.loader_workers", str(before), str(after))
            yield replace(workload, host=host), (change,)


def _memory_mapped(workload: AnyWorkload) -> Iterator[Form]:
    if not isinstance(workload, Workload) or workload.dataset is None:
        return
    if workload.dataset.container == "in-memory":
        dataset = replace(workload.dataset, container="memory-mapped")
        change = Change("workload.dataset.container", "in-memory", "memory-mapped")
        yield replace(workload, dataset=dataset), (change,)


def _with_job(workload: FitWorkload, change: Change, **to: Any) -> Form:
    return replace(workload, job=replace(workload.job, **to)), (change,)


def _float32(workload: AnyWorkload) -> Iterator[Form]:
    if not isinstance(workload, FitWorkload) or workload.job.table.dtype != "float64":
        return
    table = replace(workload.job.table, dtype="float32")
    yield _with_job(workload, Change("workload.dataset.dtype", "float64", "float32"), table=table)


def _fewer_jobs(workload: AnyWorkload) -> Iterator[Form]:
    """Half the workers, then one: each holds its own copies."""
    if not isinstance(workload, FitWorkload) or "n_jobs" not in workload.job.parameters:
        return
    before = workload.job.workers()
    for after in sorted({max(before // 2, 1), 1} - {before}, reverse=True):
        field = "workload.model.estimator.hyper_parameters.n_jobs"
        parameters = {**workload.job.parameters, "n_jobs": after}
        yield _with_job(workload, Change(field, str(before), str(after)), parameters=parameters)


def _sparse(workload: AnyWorkload) -> Iterator[Form]:
    """A table that is mostly zeros, stored without them."""
    if not isinstance(workload, FitWorkload):
        return
    table = workload.job.table
    if table.container == "numpy" and 0 < table.density < WORTH_SPARSE:
        sparse = replace(table, container="csr")
        yield _with_job(
            workload, Change("workload.dataset.container", "numpy", "csr"), table=sparse
        )


def _free_table(workload: AnyWorkload) -> Iterator[Form]:
    if not isinstance(workload, FitWorkload) or workload.job.frees_table:
        return
    if workload.job.library in ("xgboost", "lightgbm"):
        change = Change("workload.fit.frees_dataset", "false", "true")
        yield _with_job(workload, change, frees_table=True)


DATA: dict[str, Rule] = {
    "fewer-loader-workers": _loader_workers,
    "memory-mapped-dataset": _memory_mapped,
    "free-the-table": _free_table,
    "fewer-jobs": _fewer_jobs,
    "sparse-table": _sparse,
    "float32-table": _float32,
}
