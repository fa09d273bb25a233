"""Fit workloads: the estimator, its hyper-parameters and its table, from messages to values."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from sizewright.v1 import workload_pb2 as pb
from sizewright_server.estimation.classical.job import (
    FitJob,
    Strings,
    Table,
    TableFile,
    WorkerPool,
)
from sizewright_server.estimation.classical.prepared import FitWorkload
from sizewright_server.estimation.classical.registry import LIBRARIES, formula_of
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.workload import HostConditions
from sizewright_server.wire.library_versions import cuda_release
from sizewright_server.wire.models import MAX_ROWS, MAX_TOKENS, Section
from sizewright_server.wire.surroundings import read_sample_elements
from sizewright_server.wire.violations import from_pydantic, one_of

#: Frameworks whose name says the library, and what else may be written.
FRAMEWORKS = {
    "": None,
    "scikit-learn": "scikit-learn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
}
MAX_PARAMETER_BYTES = 64 * 1024
MAX_PARAMETERS = 256
DEVICES = ("cpu", "cuda", "gpu")
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class TableSection(Section):
    """`dataset` of a fit."""

    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)]
    columns: Annotated[int, Field(ge=1, le=2**40)]
    test_share: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
    dtype: Literal[
        "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"
    ]
    container: Literal["numpy", "pandas", "arrow", "csr", "memory-mapped", "streaming"]
    density: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    classes: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    fortran_order: bool
    missing_share: Share
    categories: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    text_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)]


class FitSection(Section):
    """`fit`."""

    jobs: Annotated[int, Field(ge=0, le=4096)]
    threads: Annotated[int, Field(ge=0, le=4096)]
    rounds: Annotated[int, Field(ge=0, le=10_000_000)]
    predict_rows: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    operations: tuple[Literal["fit", "fit-transform", "transform", "predict", "predict-proba"], ...]


class FileSection(Section):
    """`dataset.file` of a fit."""

    format: Literal["csv", "parquet"]
    reader: Literal["pandas", "pandas-pyarrow", "arrow"]
    size_bytes: Annotated[int, Field(ge=0, le=2**60)]
    chunk_rows: Annotated[int, Field(ge=0, le=MAX_ROWS)]


class StringsSection(Section):
    """`dataset.strings` of a fit."""

    columns: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    length: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    distinct: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    storage: Literal["arrow", "object", "categorical"]


class PoolSection(Section):
    """`fit.pool`."""

    scheduler: Literal["dask", "ray", "spark", "loky", "multiprocessing"]
    workers_per_node: Annotated[int, Field(ge=1, le=4096)]
    nodes: Annotated[int, Field(ge=1, le=1024)]


class FitReader:
    """Reads a workload whose run is a fit. `problems` collects what was wrong."""

    def __init__(self, problems: list[Violation], path: str) -> None:
        self.problems = problems
        self.path = path

    def read(self, message: pb.Workload, host: HostConditions | None) -> FitWorkload | None:
        """The workload; None when anything was wrong."""
        before = len(self.problems)
        if message.model.WhichOneof("source") != "estimator":
            self._wrong("model.estimator", "is required by 'fit': library and class_name")
            return None
        given = message.model.estimator
        library = self._library(message.framework, given.library)
        if library in LIBRARIES:
            check_class(library, given.class_name, self.problems)
        parameters = self._parameters(given)
        table = self._table(message.dataset)
        section = self._section("fit", FitSection, _fit_values(message.fit))
        file, pool = self._file(message.dataset), self._pool(message.fit)
        if len(self.problems) > before or table is None or section is None or host is None:
            return None
        job = FitJob(
            library,
            given.class_name,
            table,
            parameters,
            operations=section.operations or ("fit",),
            jobs=section.jobs or 1,
            rounds=section.rounds or None,
            threads=section.threads or max(section.jobs, 2),
            predict_rows=section.predict_rows,
            frees_table=message.fit.frees_dataset,
            returns_freed=message.fit.returns_freed_memory,
            versions=dict(message.versions),
            file=file,
            test_share=message.dataset.test_share,
            pool=pool,
        )
        return FitWorkload(job, message.name, host, cuda_release(dict(message.versions)))

    def _file(self, message: pb.Dataset) -> TableFile | None:
        if not message.HasField("file"):
            return None
        given = message.file
        values = {
            "format": given.format,
            "reader": given.reader or "pandas",
            "size_bytes": given.size_bytes,
            "chunk_rows": given.chunk_rows,
        }
        section = self._section("dataset.file", FileSection, values)
        if section is None:
            return None
        return TableFile(
            section.format, section.reader, section.size_bytes or None, section.chunk_rows
        )

    def _strings(self, message: pb.Dataset) -> Strings | None:
        if not message.HasField("strings"):
            return None
        given = message.strings
        values = {
            "columns": given.columns,
            "length": given.length,
            "distinct": given.distinct,
            "storage": given.storage or "arrow",
        }
        section = self._section("dataset.strings", StringsSection, values)
        if section is None:
            return None
        return Strings(section.columns, section.length, section.distinct or None, section.storage)

    def _pool(self, message: pb.Fit) -> WorkerPool | None:
        if not message.HasField("pool"):
            return None
        values = {
            "scheduler": message.pool.scheduler,
            "workers_per_node": message.pool.workers_per_node,
            "nodes": message.pool.nodes or 1,
        }
        section = self._section("fit.pool", PoolSection, values)
        if section is None:
            return None
        if section.nodes > 1 and section.scheduler in ("loky", "multiprocessing"):
            words = f"must be 1: {section.scheduler} starts workers on one node"
            self._wrong("fit.pool.nodes", words)
            return None
        return WorkerPool(section.scheduler, section.workers_per_node, section.nodes)

    def _library(self, framework: str, library: str) -> str:
        """The library, from the estimator or from the framework's name; they must agree."""
        if framework not in FRAMEWORKS:
            known = [name for name in FRAMEWORKS if name]
            self._wrong("framework", one_of("framework of a fit", framework, known))
            return library
        named = library or FRAMEWORKS[framework] or ""
        if named not in LIBRARIES:
            self._wrong("model.estimator.library", one_of("library", named, LIBRARIES))
        return named

    def _parameters(self, given: pb.Estimator) -> dict[str, Any]:
        if len(given.hyper_parameters) > MAX_PARAMETERS:
            words = f"has more than {MAX_PARAMETERS} entries"
            self._wrong("model.estimator.hyper_parameters", words)
            return {}
        made = {}
        for name, text in sorted(given.hyper_parameters.items()):
            field = f"model.estimator.hyper_parameters.{name}"
            if len(text.encode()) > MAX_PARAMETER_BYTES:
                self._wrong(field, f"is longer than {MAX_PARAMETER_BYTES:,} bytes")
                continue
            try:
                made[name] = json.loads(text)
            except (json.JSONDecodeError, RecursionError) as error:
                self._wrong(field, f'is not JSON ({error}); a word needs quotes: "sag"')
        for name in ("device", "device_type"):
            word = made.get(name)
            if word is not None and str(word).split(":")[0] not in DEVICES:
                known = one_of("device", str(word), DEVICES)
                self._wrong(f"model.estimator.hyper_parameters.{name}", known)
        return made

    def _table(self, message: pb.Dataset) -> Table | None:
        container = message.container or "numpy"
        section = self._section(
            "dataset",
            TableSection,
            {
                "rows": message.rows,
                "columns": message.columns or _decoded(message),
                "dtype": message.dtype or "float64",
                "container": "numpy" if container == "in-memory" else container,
                "density": message.density or 1.0,
                "classes": message.classes if message.HasField("classes") else 2,
                "fortran_order": message.column_order,
                "missing_share": message.missing_share,
                "categories": message.categories,
                "test_share": message.test_share,
                "text_tokens": message.tokens_per_row,
            },
        )
        strings = self._strings(message)
        decoded = read_sample_elements(message, self.problems, f"{self.path}.dataset")
        if section is None or decoded is None:
            return None
        return Table(**section.model_dump(exclude={"test_share"}), strings=strings)

    def _section(self, path: str, model: type[Section], values: dict[str, Any]) -> Any:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            self.problems += from_pydantic(error, f"{self.path}.{path}")
            return None

    def _wrong(self, field: str, description: str) -> None:
        self.problems.append(Violation(f"{self.path}.{field}", description))


def check_class(library: str, class_name: str, problems: list[Violation]) -> None:
    """Notes an estimator that is not known, with near names."""
    try:
        formula_of(library, class_name)
    except UnsupportedWorkload as error:
        problems += error.violations


def _fit_values(message: pb.Fit) -> dict[str, Any]:
    return {
        "jobs": message.jobs,
        "threads": message.threads,
        "rounds": message.rounds,
        "predict_rows": message.predict_rows,
        "operations": tuple(message.operations),
    }


def _decoded(message: pb.Dataset) -> int:
    """Elements of a decoded image or clip, which an estimator sees as columns; 0 for neither."""
    problems: list[Violation] = []
    return read_sample_elements(message, problems, "") or 0
