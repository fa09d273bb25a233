"""Estimators of scikit-learn that hold whole copies of the table, their number traced."""

from __future__ import annotations

from sizewright_server.estimation.classical.constants import constant, keys
from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.linear import (
    F8,
    blas_part,
    coefficients,
    float_copy,
    rows_part,
    taken_bytes,
)
from sizewright_server.estimation.classical.outputs import is_transformer
from sizewright_server.estimation.classical.parts import SKLEARN, Steps, fit_of
from sizewright_server.estimation.classical.preprocessing import output_part
from sizewright_server.estimation.classical.registry import estimator
from sizewright_server.estimation.memory import Part


@estimator("scikit-learn", *keys("copies"))
def tabulated(job: FitJob) -> Steps:
    """So many dense copies of X (`data/copies.json`); a transformer then makes its output."""
    table = job.table
    entry = constant("copies", job.class_name)
    size = table.elements * taken_bytes(table)
    held = entry.part("table-copies", "copies x n x p x bytes", size)
    targets = rows_part("row-arrays", table, 2 * F8, "targets, weights", SKLEARN)
    predict: tuple[Part, ...] = (blas_part(job, table.columns),)
    if is_transformer(job):
        predict = (output_part(job), *predict)
    panels = blas_part(job, table.columns) if entry.value >= 1 else None
    busy = (held, targets) if panels is None else (held, targets, panels)
    return fit_of(*float_copy(table), *busy, model=(coefficients(job),), predict=predict)
