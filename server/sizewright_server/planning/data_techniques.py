"""What each technique makes of data: how it is read, held and fed to workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sizewright_server.estimation.classical.cpu_network import CpuWorkload
from sizewright_server.estimation.classical.prepared import FitWorkload
from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.workload import DatasetContainer, Workload
from sizewright_server.planning.changes import Change, Form, Rule

#: Density below which values with their indices take less than all values.
WORTH_SPARSE = 0.5
#: Samples of a shuffle buffer that is proposed.
BUFFER_ROWS = 10_000
#: Share of the rows below which distinct values are worth a table of their own.
FEW_DISTINCT = 0.1
#: Rows read at a time.
CHUNK_ROWS = 1_000_000
#: Fewer columns than this are not worth choosing among.
MANY_COLUMNS = 16


def _loader_workers(workload: AnyWorkload) -> Iterator[Form]:
    if isinstance(workload, Workload) and workload.host.loader_workers > 1:
        before = workload.host.loader_workers
        for after in sorted({before // 2, 1}, reverse=True):
            host = replace(workload.host, loader_workers=after)
            change = Change("workload.host.loader_workers", str(before), str(after))
            yield replace(workload, host=host), (change,)


def _memory_mapped(workload: AnyWorkload) -> Iterator[Form]:
    if _is_held(workload):
        yield _in_container(workload, "memory-mapped")


def _streaming(workload: AnyWorkload) -> Iterator[Form]:
    """An iterator over files, with a shuffle buffer."""
    if isinstance(workload, KerasWorkload):
        yield from _keras_stream(workload)
        return
    if _is_held(workload):
        made, changes = _in_container(workload, "streaming")
        assert isinstance(made, Workload | CpuWorkload)
        assert made.dataset is not None
        rows = min(BUFFER_ROWS, made.dataset.rows)
        change = Change("workload.dataset.shuffle_buffer", "0", str(rows))
        yield replace(made, dataset=replace(made.dataset, shuffle_buffer=rows)), (*changes, change)


def _keras_stream(workload: KerasWorkload) -> Iterator[Form]:
    """A tf.data pipeline or generator over files in place of arrays."""
    data = workload.dataset
    if data is not None and data.container in ("in-memory", "objects", "tf-data"):
        change = Change("workload.dataset.container", data.container, "streaming")
        yield replace(workload, dataset=replace(data, container="streaming")), (change,)


def _is_held(workload: AnyWorkload) -> bool:
    if not isinstance(workload, Workload | CpuWorkload) or workload.dataset is None:
        return False
    return workload.dataset.container in ("in-memory", "objects")


def _in_container(workload: AnyWorkload, container: DatasetContainer) -> Form:
    assert isinstance(workload, Workload | CpuWorkload)
    assert workload.dataset is not None
    change = Change("workload.dataset.container", workload.dataset.container, container)
    dataset = replace(workload.dataset, container=container)
    return replace(workload, dataset=dataset), (change,)


def with_job(workload: FitWorkload, change: Change, **to: Any) -> Form:
    """A fit with fields of its job replaced, and the change as people see it."""
    return replace(workload, job=replace(workload.job, **to)), (change,)


def _float32(workload: AnyWorkload) -> Iterator[Form]:
    if not isinstance(workload, FitWorkload) or workload.job.table.dtype != "float64":
        return
    table = replace(workload.job.table, dtype="float32")
    yield with_job(workload, Change("workload.dataset.dtype", "float64", "float32"), table=table)


def _sparse(workload: AnyWorkload) -> Iterator[Form]:
    """A table that is mostly zeros, stored without them."""
    if not isinstance(workload, FitWorkload):
        return
    table = workload.job.table
    if table.container == "numpy" and 0 < table.density < WORTH_SPARSE:
        sparse = replace(table, container="csr")
        yield with_job(workload, Change("workload.dataset.container", "numpy", "csr"), table=sparse)


def _narrower_integers(workload: AnyWorkload) -> Iterator[Form]:
    if isinstance(workload, FitWorkload) and workload.job.table.dtype == "int64":
        table = replace(workload.job.table, dtype="int32")
        yield with_job(workload, Change("workload.dataset.dtype", "int64", "int32"), table=table)


def _free_table(workload: AnyWorkload) -> Iterator[Form]:
    """References dropped between stages: after a split, or once a library has its own form."""
    if not isinstance(workload, FitWorkload) or workload.job.frees_table:
        return
    if workload.job.library in ("xgboost", "lightgbm") or workload.job.test_share:
        change = Change("workload.fit.frees_dataset", "false", "true")
        yield with_job(workload, change, frees_table=True)


def _categorical(workload: AnyWorkload) -> Iterator[Form]:
    """Text columns of few distinct values, as codes."""
    text = workload.job.table.strings if isinstance(workload, FitWorkload) else None
    if not isinstance(workload, FitWorkload) or text is None or text.storage == "categorical":
        return
    if text.distinct is not None and text.distinct <= FEW_DISTINCT * workload.job.table.rows:
        table = replace(workload.job.table, strings=replace(text, storage="categorical"))
        field = "workload.dataset.strings.storage"
        yield with_job(workload, Change(field, text.storage, "categorical"), table=table)


def _parquet(workload: AnyWorkload) -> Iterator[Form]:
    if not isinstance(workload, FitWorkload):
        return
    file = workload.job.file
    if file is not None and file.format == "csv":
        # What the file would take as Parquet is worked out from its columns.
        other = replace(file, format="parquet", size_bytes=None)
        yield with_job(
            workload, Change("workload.dataset.file.format", "csv", "parquet"), file=other
        )


def _chunks(workload: AnyWorkload) -> Iterator[Form]:
    if not isinstance(workload, FitWorkload):
        return
    file, rows = workload.job.file, workload.job.table.rows
    if file is not None and not file.chunk_rows and rows > CHUNK_ROWS:
        change = Change("workload.dataset.file.chunk_rows", "0", str(CHUNK_ROWS))
        yield with_job(workload, change, file=replace(file, chunk_rows=CHUNK_ROWS))


def _fewer_features(workload: AnyWorkload) -> Iterator[Form]:
    """Half of the columns."""
    if isinstance(workload, FitWorkload) and workload.job.table.columns >= MANY_COLUMNS:
        before = workload.job.table.columns
        table = replace(workload.job.table, columns=before // 2)
        change = Change("workload.dataset.columns", str(before), str(before // 2))
        yield with_job(workload, change, table=table)


DATA: dict[str, Rule] = {
    "fewer-loader-workers": _loader_workers,
    "memory-mapped-dataset": _memory_mapped,
    "streaming-dataset": _streaming,
    "free-the-table": _free_table,
    "categorical-strings": _categorical,
    "narrower-integers": _narrower_integers,
    "parquet-file": _parquet,
    "chunked-reading": _chunks,
    "sparse-table": _sparse,
    "float32-table": _float32,
    "feature-reduction": _fewer_features,
}
