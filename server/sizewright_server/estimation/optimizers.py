"""Optimizers: what they keep of every parameter, and what a step makes beside it.

The figures are data (`data/optimizers.json`), each with its source; here are their formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.architecture import Role
from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.profile import Column, round_up

StepKind: TypeAlias = Literal["foreach", "fused", "for-loop"]
FP32 = 4
BYTE = 8
#: Tensors below this many elements keep whole states (bitsandbytes and torchao alike).
SMALL_TENSOR_ELEMENTS = 4096


@dataclass(frozen=True, slots=True)
class TensorTable:
    """The parameter tensors of a segment: a row each, a column per layout."""

    elements: Column
    rows: Column
    columns: Column
    is_matrix: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StateRule:
    """One kind of state, `count` times; `bytes` None means the run's own state type."""

    of: str
    count: int = 1
    bytes: int | None = None
    bits: int = 8
    block: int = 256
    limit: int = 0


@dataclass(frozen=True, slots=True)
class OptimizerKind:
    """An entry of `data/optimizers.json`."""

    states: tuple[StateRule, ...]
    foreach: int | None
    #: Tensors held at once of a parameter's size, and of the size of the one before it.
    loop: tuple[tuple[int, int], ...]
    fused: bool
    source: str
    vectors: tuple[StateRule, ...] | None = None
    embeddings: tuple[StateRule, ...] | None = None
    heads: tuple[StateRule, ...] | None = None
    paged: bool = False
    #: State tensors per parameter where all are of the parameter's size; None else.
    whole_states: int | None = None

    @property
    def steps(self) -> tuple[StepKind, ...]:
        """The ways its step can run; the first is what its library does by default."""
        first: tuple[StepKind, ...] = ("foreach",) if self.foreach is not None else ()
        return (*first, "for-loop", *(("fused",) if self.fused else ()))

    def rules(self, role: Role, *, matrix: bool) -> tuple[StateRule, ...]:
        """The states of a tensor by where it stands and whether it is a matrix.

        The matrices between two stacks are the second one's tables.
        """
        tables = {"embedding": self.embeddings, "between": self.embeddings, "head": self.heads}
        special = tables.get(role) if matrix else self.vectors
        return self.states if special is None else special


@cache
def optimizers() -> dict[str, OptimizerKind]:
    """Every optimizer by name."""
    table: dict[str, dict[str, Any]] = data_of("sizewright_server.estimation", "optimizers")
    return {name: _kind(entry) for name, entry in table.items() if not name.startswith("_")}


def _kind(entry: dict[str, Any]) -> OptimizerKind:
    values = dict(entry)
    for name in ("states", "vectors", "embeddings", "heads"):
        if name in values:
            values[name] = tuple(StateRule(**rule) for rule in values[name])
    values["loop"] = tuple(tuple(pair) for pair in values["loop"])
    states = values["states"]
    own = any(values.get(name) for name in ("vectors", "embeddings", "heads"))
    whole = not own and all(rule.of == "elements" for rule in states)
    return OptimizerKind(**values, whole_states=sum(r.count for r in states) if whole else None)


def state_bytes(
    kind: OptimizerKind, table: TensorTable, role: Role, *, ways: Column, width: int, rank: int
) -> Column:
    """Bytes of a segment's optimizer states on one rank, split `ways`; a column per layout.

    `ways` may have a row per tensor.

    `width` is the run's state type in bytes, `rank` that of a projected gradient.
    """
    total: Column = np.zeros(table.elements.shape[1:], dtype=np.int64)
    for matrix in (True, False):
        chosen = table.is_matrix == matrix
        if not chosen.any():
            continue
        split = ways[chosen] if ways.ndim > 1 else ways
        part = TensorTable(
            -(-table.elements[chosen] // split),
            -(-table.rows[chosen] // split),
            table.columns[chosen],
            chosen,
        )
        for rule in kind.rules(role, matrix=matrix):
            total = total + rule.count * _rule_bytes(rule, part, width, rank, matrix).sum(axis=0)
    return total


def _rule_bytes(rule: StateRule, part: TensorTable, width: int, rank: int, matrix: bool) -> Column:
    item = rule.bytes or width
    rows, columns, count = part.rows, part.columns, part.elements
    if rule.of == "factored":
        return (
            round_up(rows * item) + round_up(columns * item) if matrix else round_up(count * item)
        )
    if rule.of == "rows":
        return round_up(rows * item)
    if rule.of == "quantized":
        codes = round_up(-(-count * rule.bits // BYTE)) + round_up(-(-count // rule.block) * FP32)
        return np.where(count < SMALL_TENSOR_ELEMENTS, round_up(count * FP32), codes)
    if rule.of == "projected":
        return round_up(np.minimum(rank * np.maximum(rows, columns), count) * item)
    if rule.of == "projector":
        return round_up(rank * np.minimum(rows, columns) * item)
    if rule.of == "kronecker":
        sides = [np.where(side <= rule.limit, side * side, 0) for side in (rows, columns)]
        return round_up(sides[0] * item) + round_up(sides[1] * item)
    return round_up(count * item)
