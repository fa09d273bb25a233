"""Worker processes that share a fit: Dask, Ray, Spark, loky and multiprocessing."""

from __future__ import annotations

from dataclasses import replace

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.dataset import table_parts
from sizewright_server.estimation.classical.job import FitJob, WorkerPool
from sizewright_server.estimation.classical.parts import Moment, heaviest
from sizewright_server.estimation.classical.registry import steps_of
from sizewright_server.estimation.memory import ByteRange, Part

#: Schedulers whose workers get partitions; the others' workers share the caller's own table.
PARTITIONED = ("dask", "ray", "spark")


def pooled_moments(job: FitJob, pool: WorkerPool, process: tuple[Part, ...]) -> tuple[Moment, ...]:
    """Reading and fitting on one node's workers, each with its libraries and its part of the rows.

    A worker's partitions and the table joined of them live together until the library has its own
    form (XGBoost issue 11614).
    """
    workers = pool.workers_per_node
    rows = max(1, -(-job.table.rows // (workers * pool.nodes)))
    table = replace(job.table, rows=rows)
    inner = replace(job.on(table), pool=None, file=None)
    fit = heaviest(steps_of(inner).fit).parts
    each = constant("process", f"{pool.scheduler}_worker")
    node = constant("process", f"{pool.scheduler}_node").part("scheduler", "processes of a node")
    base = (node, each.part("workers", "workers x libraries of their own", workers))
    if pool.scheduler not in PARTITIONED:
        held = (*process, *base, *table_parts(job.table))
        slices = _times(table_parts(table), workers, "worker-")
        return (Moment("read", held), Moment("fit", (*held, *slices, *_times(fit, workers))))
    mine = _times(table_parts(table), workers, "partition-")
    joined = _times(table_parts(table), workers, "joined-")
    busy = (*base, *mine, *joined, *_times(fit, workers))
    return (Moment("read", (*base, *mine)), Moment("fit", busy))


def _times(parts: tuple[Part, ...], workers: int, prefix: str = "") -> tuple[Part, ...]:
    return tuple(
        replace(
            each,
            name=prefix + each.name,
            size=ByteRange(
                workers * each.size.low_bytes,
                workers * each.size.best_bytes,
                workers * each.size.high_bytes,
            ),
            formula=f"workers x ({each.formula})",
            numbers=f"{workers} x ({each.numbers})",
        )
        for each in parts
    )
