"""The parameter tensors of a segment as a table, and which of them are of experts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.optimizers import TensorTable
from sizewright_server.estimation.profile import Column, elements

#: The dimension that says how many experts a rank has.
EXPERTS = "NL"


def expert_rows(segment: Segment) -> NDArray[np.bool_]:
    """Which parameter tensors are of experts that expert-parallel ranks share out."""
    return np.array([EXPERTS in p.shape for p in segment.program.parameters], dtype=np.bool_)


def tensor_table(segment: Segment, dims: dict[str, Column], layouts: int) -> TensorTable:
    """Every parameter tensor's elements, and its rows and columns as a matrix."""
    shapes = [parameter.shape for parameter in segment.program.parameters]
    made = np.empty((2, len(shapes), layouts), dtype=np.int64)
    for row, shape in enumerate(shapes):
        made[0, row] = elements(shape[:1], dims)
        made[1, row] = elements(shape[1:], dims)
    matrix = np.array([len(shape) > 1 for shape in shapes], dtype=bool)
    return TensorTable(made[0] * made[1], made[0], made[1], matrix)


def chosen(table: TensorTable, mask: NDArray[np.bool_]) -> TensorTable:
    """The tensors of a table that a mask picks."""
    return TensorTable(
        table.elements[mask], table.rows[mask], table.columns[mask], table.is_matrix[mask]
    )


def distinct_matrices(
    segments: Sequence[Segment], counts: Sequence[Column], tables: Sequence[TensorTable]
) -> Column:
    """Elements of one tensor of every shape that the linear layers' trained weights have."""
    shapes: dict[tuple[object, ...], Column] = {}
    for segment, count, table in zip(segments, counts, tables, strict=True):
        if segment.role == "embedding":
            continue
        here = np.minimum(count, 1)
        for row, parameter in enumerate(segment.program.parameters):
            if table.is_matrix[row] and parameter.trained:
                # A grouped layer has a weight for each expert.
                one = table.elements[row] // (table.rows[row] if EXPERTS in parameter.shape else 1)
                key = (segment.sizes, parameter.shape)
                shapes[key] = np.maximum(shapes.get(key, 0), here * one)
    total: Column = np.zeros_like(counts[0])
    for size in shapes.values():
        total = total + size
    return total
