"""What combinations of techniques that were tried tell of those with fewer of the same."""

from __future__ import annotations

from collections.abc import Sequence

from sizewright_server.planning.kinds import KindColumns
from sizewright_server.planning.picks import Mask, Picks
from sizewright_server.planning.techniques import Applied
from sizewright_server.planning.variants import weaker

#: What leaving techniques out can save of a node's larger pool (held by a test).
REACH = 0.5


class Reach:
    """Remembers the kinds of node that each combination left beyond the reach of weaker ones."""

    def __init__(self, kinds: KindColumns) -> None:
        self._kinds = kinds
        self._beyond: list[tuple[frozenset[Applied], int, Mask]] = []

    def note(self, steps: Sequence[Applied], nodes: int, nearest: Picks) -> None:
        """Kinds that lack too much on so many nodes for leaving out a technique to make it fit."""
        lacks_much = nearest.score > REACH * self._kinds.largest_bytes
        self._beyond.append((frozenset(steps), nodes, nearest.found & lacks_much))

    def within(self, steps: Sequence[Applied], nodes: int, kinds: Mask) -> Mask:
        """Those of the kinds that no stronger combination left beyond reach."""
        mine = frozenset(steps)
        for stronger, count, far in self._beyond if kinds.any() else ():
            if count == nodes and weaker(mine, stronger):
                kinds = kinds & ~far
        return kinds
