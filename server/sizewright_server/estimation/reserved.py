"""What the caching allocator holds beyond live tensors where it cannot be replayed exactly.

Batches of varying length leave blocks behind: each time a batch is longer than every one before,
the tensors that depend on its length (the largest, logits and their gradients, before all) find no
free block that is large enough, and new segments are taken. Replays of the allocator over steps of
random lengths show it, and agree with published peaks (`data/reserved.json`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from sizewright_server.estimation.profile import Column, walk
from sizewright_server.estimation.training import TrainingGroup

if TYPE_CHECKING:
    from sizewright_server.estimation.inference import InferenceGroup


@dataclass(frozen=True, slots=True)
class Reserved:
    """Bytes held: the best value for a run as stated, and the highest."""

    best: Column
    high: Column


@dataclass(frozen=True, slots=True)
class Left:
    """Bytes left cached: at least, as a rule, and at most."""

    low: Column
    best: Column
    high: Column


@cache
def reserved_shares() -> dict[str, tuple[float, float, float]]:
    """Low, best and high share by kind of run."""
    text = resources.files("sizewright_server.estimation").joinpath("data/reserved.json")
    table = json.loads(text.read_text(encoding="utf-8"))
    return {
        name: (float(entry["low"]), float(entry["value"]), float(entry["high"]))
        for name, entry in table.items()
        if not name.startswith("_")
    }


def reserved(
    group: TrainingGroup | InferenceGroup, best: Column, upper: Column, moving: Column
) -> Reserved:
    """Bytes the allocator holds; `moving` are those that come and go in a step."""
    share = reserved_shares()[kind_of(group)]
    return Reserved(
        best + (moving * share[1]).astype(np.int64), upper + (moving * share[2]).astype(np.int64)
    )


def kind_of(group: TrainingGroup | InferenceGroup) -> str:
    """The entry of `data/reserved.json` for a run."""
    if not isinstance(group, TrainingGroup):
        return "inference"
    if group.training.expandable_segments:
        return "expandable"
    return "training" if group.training.checkpointing == "none" else "training-checkpointed"


def left_by_lengths(group: TrainingGroup | InferenceGroup) -> Left:
    """Bytes that batches of other lengths leave cached; nothing where they do not vary.

    They are given back before a request fails, so that they count in what is seen and not in what
    is needed.
    """
    nothing: Column = np.zeros(1, dtype=np.int64)
    if not isinstance(group, TrainingGroup) or not group.training.variable_lengths:
        return Left(nothing, nothing, nothing)
    if group.training.expandable_segments:
        return Left(nothing, nothing, nothing)
    at_loss: Column = np.zeros_like(group.dp)
    live = at_loss
    for stage in group.schedule.stages:
        if stage.phase == "loss":
            result = walk(stage.events, stage.sizes)
            at_loss = np.maximum(at_loss, live + result.peak_bytes)
            live = live + result.delta_bytes
    shares = reserved_shares()["varying-lengths"]
    low, best, high = ((at_loss * share).astype(np.int64) for share in shares)
    return Left(low, best, high)
