"""What the implementations of the gated delta rule share: shapes, and what they read.

Dimensions: LH value heads, LG key heads, LD and LE the widths of their heads, LT tokens filled up
to whole chunks, LC chunks. Of the loop over the chunks the last two turns are written out; BE is
the samples of the last but one (0 where there is one chunk), BR samples times all turns before it,
and BQ those without the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sizewright_server.estimation.tape import Shape, Value

#: Tokens of a chunk in both implementations.
CHUNK = 64

KEYS: Shape = ("B", "LH", "LT", "LD")
VALUES: Shape = ("B", "LH", "LT", "LE")
SQUARES: Shape = ("B", "LH", "LT", CHUNK)
SCALARS: Shape = ("B", "LH", "LT", 1)
STATE: Shape = ("B", "LH", "LD", "LE")


@dataclass(frozen=True, slots=True)
class Heads:
    """What the rule reads: queries, keys, values of every head, and its two gates."""

    q: Value
    k: Value
    v: Value
    decay: Value
    beta: Value


#: Takes a tensor that a cache keeps, and the storages that the graph behind it has saved.
Cached: TypeAlias = Callable[[Value, Sequence[int]], None]
