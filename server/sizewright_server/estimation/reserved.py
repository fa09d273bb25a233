"""What the caching allocator holds beyond live tensors where it cannot be replayed exactly.

Batches of varying length leave blocks behind: each time a batch is longer than every one before,
the tensors that depend on its length (the largest, logits and their gradients, before all) find no
free block that is large enough, and new segments are taken. Replays of the allocator over steps of
random lengths show it, and agree with published peaks (`data/reserved.json`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.fsdp import FsdpWorkingSet
from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.modeling import training_loop
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.techniques import Kernels
from sizewright_server.estimation.training import TrainingGroup

if TYPE_CHECKING:
    from sizewright_server.estimation.inference import InferenceGroup

#: A segment for tensors of 1 to 10 MiB: one more or less decides the error of a tiny model.
LARGE_SEGMENT_BYTES = 20 * 2**20


@dataclass(frozen=True, slots=True)
class Reserved:
    """Bytes held: the best value for a run as stated, and the highest."""

    best: Column
    high: Column


@cache
def reserved_shares() -> dict[str, tuple[float, float, float]]:
    """Low, best and high share by kind of run."""
    table = data_of("sizewright_server.estimation", "reserved")
    return {
        name: (float(entry["low"]), float(entry["value"]), float(entry["high"]))
        for name, entry in table.items()
        if not name.startswith("_")
    }


def reserved(
    group: TrainingGroup | InferenceGroup, best: Column, upper: Column, moving: Column
) -> Reserved:
    """Bytes the allocator holds; `moving` are those that come and go in a step.

    A device of the highest is enough: an allocator that has no more gives back whole segments that
    are free, and what a replay then still needs is below (held by a test over random runs).
    """
    kind = kind_of(group)
    share = reserved_shares()[kind]
    high = upper + (moving * share[2]).astype(np.int64) + _wrapped(group)
    if kind != "expandable":
        high = high + _unfilled(group)
    return Reserved(best + (moving * share[1]).astype(np.int64), high)


def _unfilled(group: TrainingGroup | InferenceGroup) -> Column:
    """Bytes at most of segments that weights, and states that are made like them, do not fill."""
    share, least = (reserved_shares()[name][2] for name in ("segments", "segments-bytes"))
    if not isinstance(group, TrainingGroup):
        held, empty = group.resident, group.unfilled()
    else:
        held, weights = group.resident.total, group.resident.weights
        copies = np.where(weights > 0, held // np.maximum(weights, 1), 0)
        empty = group.states.unfilled() * (1 + copies)
    found: Column = empty + (held * share).astype(np.int64) + int(least)
    return found


def _wrapped(group: TrainingGroup | InferenceGroup) -> Column | int:
    """Blocks that FSDP may leave cached from wrapping: each unit is whole before it is sharded."""
    if not isinstance(group, TrainingGroup) or not isinstance(group.working, FsdpWorkingSet):
        return 0
    whole: Column = group.working.root + np.max(group.working.units, axis=0)
    return whole


def around_replay(
    group: TrainingGroup | InferenceGroup, exact: int, allocated: ByteRange, expected: ByteRange
) -> ByteRange:
    """The interval around what a replay of the allocator found.

    It is narrow where nothing but the model's own code takes part in the step; elsewhere it reaches
    as far as recipes were seen to be from their replays, within that of a run which is not
    replayed, with the doubt of the tensors and of other streams' pools.
    """
    if not _is_plain(group):
        ahead = 0
        if isinstance(group, TrainingGroup):
            ahead = int(group.working.ahead_of_time()[group.shown])
        low, _, high = reserved_shares()["replayed-recipes"]
        # Segments are in the replay; the bound without one adds them.
        bound = expected.high_bytes - int(_unfilled(group)[group.shown])
        most = max(exact + ahead, allocated.high_bytes, min(int(exact * (1 + high)), bound))
        least = expected.low_bytes
        if not _has_other_lengths(group):
            least = max(least, int(exact * (1 - low)))
        return ByteRange(min(exact, least), exact, most)
    low, _, high = reserved_shares()["replayed"]
    least = max(allocated.low_bytes, int(exact * (1 - low)))
    most = max(allocated.high_bytes, int(exact * (1 + high)) + LARGE_SEGMENT_BYTES)
    return ByteRange(min(exact, least), exact, most)


def needed(held: ByteRange, expected: ByteRange) -> ByteRange:
    """What a device must have for a run that is seen to hold more than `expected` at most.

    An allocator that finds no room gives cached segments back and asks again
    (CUDACachingAllocator.cpp, `release_cached_blocks`).
    """
    most = expected.high_bytes
    return ByteRange(*(min(at, most) for at in (held.low_bytes, held.best_bytes, held.high_bytes)))


def _has_other_lengths(group: TrainingGroup | InferenceGroup) -> bool:
    """Batches may be shorter than the one that is replayed."""
    if not isinstance(group, TrainingGroup):
        return False
    return bool(group.training.variable_lengths) or group.training.seq_len_is_limit


def _is_plain(group: TrainingGroup | InferenceGroup) -> bool:
    """One GPU, and only the model's own code: no Trainer, no adapter, no other kernel."""
    if not isinstance(group, TrainingGroup):
        return int(group.tp[0]) == 1
    run = group.training
    return (
        group.layout.gpus == 1
        and training_loop(run) == "plain"
        and run.adapter is None
        and run.base_weights is None
        and not run.variable_lengths
        and run.kernels in (Kernels(), Kernels(recurrence="eager"))
    )


def kind_of(group: TrainingGroup | InferenceGroup) -> str:
    """The entry of `data/reserved.json` for a run."""
    if not isinstance(group, TrainingGroup):
        return "inference"
    if group.training.expandable_segments:
        return "expandable"
    return "training" if group.training.checkpointing == "none" else "training-checkpointed"


def left_by_lengths(group: TrainingGroup | InferenceGroup) -> ByteRange:
    """Bytes that batches of other lengths leave cached; nothing where they do not vary.

    They are given back before a request fails, so that they count in what is seen and not in what
    is needed.
    """
    if not isinstance(group, TrainingGroup) or not group.training.variable_lengths:
        return ByteRange(0, 0, 0)
    if group.training.expandable_segments:
        return ByteRange(0, 0, 0)
    at_loss = live = 0
    walks, column = group.walks, group.shown
    for row, phase in enumerate(group.course.phases):
        if phase == "loss":
            at_loss = max(at_loss, live + int(walks.peak_bytes[row, column]))
            live += int(walks.delta_bytes[row, column])
    low, best, high = (int(at_loss * share) for share in reserved_shares()["varying-lengths"])
    return ByteRange(min(low, best), best, max(best, high))
