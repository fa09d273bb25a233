"""What is to be fitted: a table, an estimator with its settings, and what is done with it.

Counts are rows, columns, trees and the like; bytes carry `_bytes` in their name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sizewright_server.estimation.problems import UnsupportedWorkload, Violation

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
#: Containers a table may be in; `dataset.py` says what each costs.
CONTAINERS = ("numpy", "pandas", "arrow", "csr", "memory-mapped", "streaming")
OPERATIONS = ("fit", "fit-transform", "transform", "predict", "predict-proba")
PARAMETERS_FIELD = "workload.model.estimator.hyper_parameters"


@dataclass(frozen=True, slots=True)
class Strings:
    """Columns of text beside the numeric ones; `distinct` None is as many as rows."""

    columns: int
    length: int
    distinct: int | None = None
    storage: Literal["arrow", "object", "categorical"] = "arrow"


@dataclass(frozen=True, slots=True)
class TableFile:
    """The file a table is read from; `size_bytes` None is computed from the columns."""

    format: Literal["csv", "parquet"]
    reader: Literal["pandas", "pandas-pyarrow", "arrow"] = "pandas"
    size_bytes: int | None = None
    chunk_rows: int = 0


@dataclass(frozen=True, slots=True)
class WorkerPool:
    """Processes that share a fit; `nodes` hold as many each."""

    scheduler: Literal["dask", "ray", "spark", "loky", "multiprocessing"]
    workers_per_node: int
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class Table:
    """Rows and columns of one type. `density` counts for sparse containers alone.

    `classes` is the number of labels, 0 for a continuous target. `categories` is the mean number
    of distinct values of a column that is encoded; `text_tokens` the mean tokens of a document.
    """

    rows: int
    columns: int
    dtype: str = "float64"
    container: str = "numpy"
    density: float = 1.0
    classes: int = 2
    fortran_order: bool = False
    missing_share: float = 0.0
    categories: int = 0
    text_tokens: int = 0
    strings: Strings | None = None

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return ITEM_BYTES[self.dtype]

    @property
    def elements(self) -> int:
        """Rows times columns."""
        return self.rows * self.columns

    @property
    def sparse(self) -> bool:
        """Whether only non-zero elements are stored."""
        return self.container == "csr"

    @property
    def stored_elements(self) -> int:
        """Elements that are stored."""
        return int(self.elements * self.density) if self.sparse else self.elements

    @property
    def floating(self) -> bool:
        """Whether the estimators of scikit-learn that keep floats keep this type."""
        return self.dtype in ("float32", "float64")

    def matrix_bytes(self, item_bytes: int | None = None) -> int:
        """The matrix in this container, with elements of `item_bytes` where given.

        CSR: the values, a column index each, and a pointer per row; scipy takes 32-bit indices as
        long as both the columns and the stored elements fit them.
        """
        item = self.item_bytes if item_bytes is None else item_bytes
        if not self.sparse:
            return self.elements * item
        index = 4 if max(self.columns, self.stored_elements) < 2**31 else 8
        return self.stored_elements * (item + index) + (self.rows + 1) * index


@dataclass(frozen=True, slots=True)
class FitJob:
    """An estimator on a table. `parameters` are hyper-parameters by name, as JSON values."""

    library: str
    class_name: str
    table: Table
    parameters: Mapping[str, Any] = field(default_factory=dict)
    operations: tuple[str, ...] = ("fit",)
    jobs: int = 1
    rounds: int | None = None
    threads: int = 2
    #: Rows of a prediction; 0 means the whole table.
    predict_rows: int = 0
    #: The caller drops the table once the library has its own form of it.
    frees_table: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    file: TableFile | None = None
    #: Share of the rows that train_test_split puts aside; both sides are copies.
    test_share: float = 0.0
    pool: WorkerPool | None = None
    #: glibc's thresholds are fixed, so that what a library frees goes back to the system.
    returns_freed: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether a boosting library grows its trees on a GPU."""
        device = str(self.parameters.get("device") or self.parameters.get("device_type") or "cpu")
        return self.library != "scikit-learn" and device.split(":")[0] in ("cuda", "gpu")

    def get(self, name: str, default: Any = None) -> Any:
        """A hyper-parameter as it was given."""
        return self.parameters.get(name, default)

    def number(self, name: str, default: float | None = None) -> float | None:
        """A numeric hyper-parameter; None where it is null. Raises UnsupportedWorkload."""
        value = self.parameters.get(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(name, f"must be a number, not {value!r}")
        if value != value or abs(value) > 2**53:
            raise self.refuse(name, f"must be a finite number of at most 2^53, not {value!r}")
        return value

    def count(self, name: str, default: int) -> int:
        """A hyper-parameter that counts something, at least 0. Raises UnsupportedWorkload."""
        value = self.number(name, default)
        made = default if value is None else int(value)
        if made < 0:
            raise self.refuse(name, f"must be at least 0, not {made}")
        return made

    def word(self, name: str, default: str, known: tuple[str, ...]) -> str:
        """A hyper-parameter with a closed set of words. Raises UnsupportedWorkload."""
        value = self.parameters.get(name)
        made = default if value is None else value
        if made not in known:
            raise self.refuse(name, f"must be one of {', '.join(known)}, not {made!r}")
        return str(made)

    def workers(self) -> int:
        """Parallel workers: `n_jobs`, where -1 is every thread, else the job's own."""
        asked = self.number("n_jobs")
        if asked is None:
            return max(self.jobs, 1)
        return max(1, int(asked) if asked > 0 else self.threads + 1 + int(asked))

    def on(self, table: Table) -> FitJob:
        """The same job on another table."""
        return replace(self, table=table)

    def refuse(self, name: str, words: str) -> UnsupportedWorkload:
        """The error for a wrong hyper-parameter."""
        return UnsupportedWorkload(Violation(f"{PARAMETERS_FIELD}.{name}", words))
