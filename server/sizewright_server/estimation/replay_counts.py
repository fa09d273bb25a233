"""How many blocks of a deep model the allocator's replay runs through."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sizewright_server.estimation.training import TrainingGroup

if TYPE_CHECKING:
    from sizewright_server.estimation.architecture import Sizes
    from sizewright_server.estimation.inference import InferenceGroup

#: Events of one step that are replayed at most: under 20 ms for two steps of a deep model.
MOST_EVENTS = 6500


def replayed_counts(group: TrainingGroup | InferenceGroup, counts: list[int]) -> list[int]:
    """Instances of each segment, the blocks cut down to what `MOST_EVENTS` allows.

    Of blocks of each kind the same share is left, one at least, in the order in which kinds
    alternate.
    """
    events: int = 0
    # The first of several micro-batches makes gradients that another one adds to.
    passes = 1 + (isinstance(group, TrainingGroup) and group.adding)
    for stage in group.all_stages:
        events += passes * int(stage.count[0]) * len(stage.events.signs)
    if events <= MOST_EVENTS:
        return counts
    share = MOST_EVENTS / events
    seen: Counter[tuple[int, Sizes]] = Counter()
    left = []
    for segment, count in zip(group.segments, counts, strict=True):
        if not segment.repeats or not count:
            left.append(count)
            continue
        kind = (id(segment.program), segment.sizes)
        before = _share_of(seen[kind], share)
        seen[kind] += count
        left.append(_share_of(seen[kind], share) - before)
    return left


def _share_of(count: int, share: float) -> int:
    """So many of `count` blocks: one at least, if there is one."""
    return max(1, round(count * share)) if count else 0
