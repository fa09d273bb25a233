"""A process that reads one CSV or Parquet file into pandas."""

from __future__ import annotations

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.estimate import host_estimate
from sizewright_server.estimation.classical.files import FileColumns, csv_parts, parquet_parts
from sizewright_server.estimation.classical.parts import Moment
from sizewright_server.estimation.memory import MemoryEstimate, Part

__all__ = ["FileColumns", "estimate_csv", "estimate_parquet"]


def _process() -> tuple[Part, ...]:
    return (
        constant("process", "pandas").part("process", "interpreter, pandas, pyarrow"),
        constant("process", "pandas_first_read").part("first-read", "threads, buffers"),
    )


def estimate_csv(file: FileColumns, *, engine: str = "c") -> MemoryEstimate:
    """Peak of pandas.read_csv."""
    parts = (*_process(), *csv_parts(file, engine=engine))
    return host_estimate((Moment("read", parts),), "pandas read_csv", "process")


def estimate_parquet(file: FileColumns) -> MemoryEstimate:
    """Peak of pandas.read_parquet."""
    parts = (*_process(), *parquet_parts(file))
    return host_estimate((Moment("read", parts),), "pandas read_parquet", "process")
