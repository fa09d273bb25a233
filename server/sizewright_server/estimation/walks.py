"""Walks of passes: live bytes over their events, for many layouts and many passes at once.

Passes that follow each other are walked as one: their segments' tables of sizes are stacked, and
what is live at the start of a pass is taken off again. So the steps of a walk do not depend on how
many passes there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.profile import Column, Pass


@dataclass(frozen=True, slots=True)
class Walk:
    """Live bytes of a pass, relative to its start: the highest, and what is left at its end.

    Of several passes a row each.
    """

    peak_bytes: Column
    delta_bytes: Column


def until_made(events: Pass, storage: int) -> Pass:
    """A pass up to the allocation of a storage; the whole pass where it makes none such."""
    made = np.flatnonzero((events.storages == storage) & (events.signs > 0))
    stop = int(made[0]) + 1 if len(made) else len(events.signs)
    return Pass(events.signs[:stop], events.storages[:stop])


def walk(events: Pass, sizes: Column) -> Walk:
    """Walks one pass; the peak is never below the start."""
    if not len(events.signs):
        zero = np.zeros(sizes.shape[1], dtype=np.int64)
        return Walk(zero, zero)
    live = np.cumsum(events.signs[:, None] * sizes[events.storages], axis=0)
    return Walk(np.maximum(live.max(axis=0), 0), live[-1])


def walk_all(passes: Sequence[Pass], over: Sequence[int], tables: Sequence[Column]) -> Walk:
    """Walks passes, each over one of the tables of sizes, as if they were one."""
    joined = _joined(tuple(passes), tuple(over), tuple(map(len, tables)))
    moved = np.concatenate(tables)[joined.storages]
    moved *= joined.signs
    live = moved.cumsum(axis=0)
    ends = live[joined.stops]
    before = np.zeros_like(ends)
    before[1:] = ends[:-1]
    peaks = np.maximum.reduceat(live, joined.starts, axis=0)
    return Walk(np.maximum(peaks - before, 0), ends - before)


@dataclass(frozen=True, slots=True, eq=False)
class _Joined:
    """Passes one behind the other: where each starts and stops, over tables in one stack."""

    signs: NDArray[np.int64]
    storages: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


@lru_cache(maxsize=256)
def _joined(passes: tuple[Pass, ...], over: tuple[int, ...], rows: tuple[int, ...]) -> _Joined:
    # A pass without events is walked as one event that moves nothing.
    own = [(p.signs, p.storages) if len(p.signs) else (_NOTHING, _NOTHING) for p in passes]
    first = np.cumsum([0, *rows])
    stops = np.cumsum([len(signs) for signs, _ in own])
    return _Joined(
        np.concatenate([signs for signs, _ in own])[:, None],
        np.concatenate([first[at] + storages for (_, storages), at in zip(own, over, strict=True)]),
        np.concatenate(([0], stops[:-1])),
        stops - 1,
    )


_NOTHING = np.zeros(1, dtype=np.int64)
