"""Picks: per kind of node one way to run the workload, as columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.profile import Column
from sizewright_server.planning.hours import NEVER

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Picks:
    """Per kind of node one way to run the workload, as columns. `variant` -1: none."""

    def __init__(self, count: int) -> None:
        self.variant = np.full(count, -1, dtype=np.int64)
        self.nodes, self.row = np.zeros((2, count), dtype=np.int64)
        #: What the pick is good for: the less, the better.
        self.score: Floats = np.full(count, NEVER)

    @property
    def found(self) -> Mask:
        """The kinds that have one."""
        return self.variant >= 0

    def of(self, kind: int) -> tuple[int, int, int]:
        """Variant, nodes and row of a kind's pick."""
        return int(self.variant[kind]), int(self.nodes[kind]), int(self.row[kind])

    def offer(self, which: Column, score: Floats, variant: int, nodes: int, row: Column) -> None:
        """Takes what is better than what there is, kind by kind; of equals the first stays."""
        better = score < self.score[which]
        mine = which[better]
        self.score[mine] = score[better]
        self.variant[mine], self.nodes[mine], self.row[mine] = variant, nodes, row[better]


def fewest(levels: dict[int, Picks], count: int) -> Picks:
    """Per kind the pick of the fewest nodes."""
    first = Picks(count)
    for nodes in sorted(levels):
        level = levels[nodes]
        mine = np.nonzero(level.found & ~first.found)[0]
        for name in ("variant", "nodes", "row", "score"):
            getattr(first, name)[mine] = getattr(level, name)[mine]
    return first
