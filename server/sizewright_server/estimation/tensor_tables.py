"""The parameter tensors of a model's segments as one table: a row each, a column per layout.

Segments with the same program and sizes share their rows. What is summed over a segment's tensors
is summed over all segments at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.architecture import Sizes
from sizewright_server.estimation.dims import Dims
from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.optimizers import TensorTable
from sizewright_server.estimation.profile import Column, Program, kind_sizes
from sizewright_server.estimation.tape import Parameter
from sizewright_server.estimation.weight_formats import WeightFormat

#: The dimension that says how many experts a rank has.
EXPERTS = "NL"
#: Widths are compared in halves: 16 bit are one of 32, two of 16.
HALVES = 2
#: Stands for the parameters of a program without any, so that every sum has a row.
NO_PARAMETER = Parameter((0,), 1, trained=False, stored=None)


@dataclass(frozen=True, slots=True, eq=False)
class TensorRows:
    """What is known of the tensors of several programs whatever their sizes, in one stack.

    `starts` are the programs' first rows, with the end behind them; `trained`, `asking` (for a
    gradient, got or not), `experts` (shared out over expert-parallel ranks) and `unread` (by any
    operator) are columns, as are the `itemsizes` they are read in; `packed` are the rows of each
    weight format.
    """

    starts: NDArray[np.int64]
    trained: NDArray[np.bool_]
    asking: NDArray[np.bool_]
    experts: NDArray[np.bool_]
    unread: NDArray[np.bool_]
    itemsizes: NDArray[np.int64]
    is_matrix: NDArray[np.bool_]
    packed: tuple[tuple[WeightFormat, NDArray[np.int64]], ...]

    @property
    def has_experts(self) -> bool:
        """Any tensor is of experts."""
        return bool(self.experts.any())

    @property
    def has_unread(self) -> bool:
        """Any tensor is never read."""
        return bool(self.unread.any())

    def own_widths(self, adapter: int) -> Column | int:
        """Twice the width of each trained tensor over that of the adapter's.

        A module that is trained beside an adapter keeps the type of the frozen weights, and with it
        its gradients and states. `adapter` is 0 where there is none.
        """
        if not adapter or (self.itemsizes[self.trained] == adapter).all():
            return HALVES
        return np.where(self.trained, HALVES * self.itemsizes // adapter, HALVES)


@lru_cache(maxsize=1024)
def tensor_rows(programs: tuple[Program, ...]) -> TensorRows:
    """The rows of several programs."""
    parameters: list[Parameter] = []
    starts = [0]
    for program in programs:
        parameters += program.parameters or (NO_PARAMETER,)
        starts.append(len(parameters))
    formats = dict.fromkeys(p.stored for p in parameters if p.stored is not None)
    return TensorRows(
        starts=np.array(starts, dtype=np.int64),
        trained=np.array([[p.trained] for p in parameters]),
        asking=np.array([[p.trained or p.idle] for p in parameters]),
        experts=np.array([[EXPERTS in p.shape] for p in parameters]),
        unread=np.array([[p.unread] for p in parameters]),
        itemsizes=np.array([[p.itemsize] for p in parameters], dtype=np.int64),
        is_matrix=np.array([len(p.shape) > 1 for p in parameters]),
        packed=tuple(
            (kind, np.flatnonzero([p.stored == kind for p in parameters])) for kind in formats
        ),
    )


class Tensors:
    """The tensors of segments under some dimensions."""

    def __init__(self, segments: Sequence[Segment], dims: Dims, *, flat: bool = False) -> None:
        kinds: dict[tuple[int, Sizes], int] = {}
        firsts: list[Segment] = []
        #: Which of the different segments each one is.
        self.which: list[int] = []
        for segment in segments:
            key = (id(segment.program), segment.sizes)
            if key not in kinds:
                kinds[key] = len(firsts)
                firsts.append(segment)
            self.which.append(kinds[key])
        self.rows = tensor_rows(tuple(segment.program for segment in firsts))
        made = [kind_sizes(s.program.tensor_sides, dims.of(s.sizes)) for s in firsts]
        sides = np.concatenate([s.reshape(2, -1, s.shape[1]) for s in made], axis=1)
        #: Every tensor's elements, and its rows and columns as a matrix.
        self.table = TensorTable(sides[0] * sides[1], sides[0], sides[1], self.rows.is_matrix)
        #: Those with gradients and states; in flat buffers with those that get no gradient.
        self.mask = self.rows.asking if flat else self.rows.trained
        self.trained: Column = self.table.elements * self.mask

    def sums(self, values: Column) -> Column:
        """What a row per tensor comes to in each segment: a row per segment."""
        made: Column = np.add.reduceat(values, self.rows.starts[:-1], axis=0)[self.which]
        return made

    def of(self, number: int) -> slice:
        """The rows of a segment."""
        at = self.which[number]
        return slice(*self.rows.starts[at : at + 2].tolist())


def chosen(table: TensorTable, rows: slice, mask: NDArray[np.bool_]) -> TensorTable:
    """The tensors of a run of rows that a mask picks."""
    return TensorTable(
        table.elements[rows][mask],
        table.rows[rows][mask],
        table.columns[rows][mask],
        table.is_matrix[rows][mask],
    )


def distinct_matrices(segments: Sequence[Segment], here: Column, tensors: Tensors) -> Column:
    """Elements of one tensor of every shape that the linear layers' trained weights have."""
    shapes: dict[tuple[object, ...], Column] = {}
    table = tensors.table
    for number, segment in enumerate(segments):
        if segment.role == "embedding":
            continue
        for row, parameter in enumerate(segment.program.parameters, tensors.of(number).start):
            if table.is_matrix[row] and parameter.trained:
                # A grouped layer has a weight for each expert.
                one = table.elements[row] // (table.rows[row] if EXPERTS in parameter.shape else 1)
                key = (segment.sizes, parameter.shape)
                shapes[key] = np.maximum(shapes.get(key, 0), here[number] * one)
    total: Column = np.zeros_like(here[0])
    for size in shapes.values():
        total = total + size
    return total
