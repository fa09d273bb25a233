"""Pipeline stages: which layers a rank holds, and how many micro-batches it has in flight.

Symbols: p stages, r a stage counted from 0, m micro-batches, v model chunks per rank.

Sources: 1F1B and interleaved 1F1B, Megatron-LM (core/pipeline_parallel/schedules.py: warm-up
micro-batches) and arXiv 2104.04473; GPipe, arXiv 1811.06965; zero bubble, arXiv 2401.10241 (its
ZB-H1 holds on every stage what 1F1B holds on the first).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from sizewright_server.estimation.layout import PipelineSchedule
from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.profile import Column

#: The stages that can be the fullest: the first has the embedding and the most micro-batches in
#: flight, the second the most of those without it, the last the head and its loss.
Position: TypeAlias = Literal["only", "first", "second", "last"]


def positions(pp: int) -> tuple[Position, ...]:
    """The stages to look at, for the largest pipeline of a group."""
    if pp == 1:
        return ("only",)
    return ("first", "last") if pp == 2 else ("first", "second", "last")


def stage_index(position: Position, pp: Column) -> Column:
    """The stage's number; of short pipelines the second may be the last."""
    if position in ("only", "first"):
        return np.zeros_like(pp)
    return np.minimum(1, pp - 1) if position == "second" else pp - 1


def stage_counts(
    segments: Sequence[Segment],
    pp: Column,
    virtual: Column,
    stage: Column,
    ends: tuple[int, int] = (0, 0),
) -> Column:
    """Instances of each segment on a stage, a row each; layers are spread as evenly as they divide.

    With v chunks, chunk c of stage r is the (c p + r)-th of the p v pieces. `ends` are the layers
    of the first and the last stage where they are stated.
    """
    layers = sum(s.count for s in segments if s.repeats)
    spans = []
    for chunk in range(int(virtual.max())):
        there = chunk < virtual
        first, last = (_cut(layers, pp, virtual, chunk, stage + at, ends) for at in (0, 1))
        spans.append((np.where(there, first, 0), np.where(there, last, 0)))
    counts, start = [], 0
    for segment in segments:
        if not segment.repeats:
            home = stage == 0 if segment.role == "embedding" else stage == pp - 1
            counts.append(np.where(home, segment.count, 0))
            continue
        end = start + segment.count
        parts = [np.maximum(np.minimum(b, end) - np.maximum(a, start), 0) for a, b in spans]
        counts.append(np.sum(parts, axis=0))
        start = end
    return np.array(counts)


def _cut(
    layers: int, pp: Column, virtual: Column, chunk: int, stage: Column, ends: tuple[int, int]
) -> Column:
    """Layers before a stage's part of a chunk."""
    if not any(ends):
        return (chunk * pp + stage) * layers // (pp * virtual)
    first, last = ends
    between = np.maximum(pp - (first > 0) - (last > 0), 1)
    each = (layers - first - last) // between
    before = np.where(stage > 0, (first or each) + (stage - 1) * each, 0)
    before = np.where(stage == pp, layers, before)
    cut: Column = -(-(chunk * layers + before) // virtual)
    return cut


def chunks_in_flight(
    schedule: PipelineSchedule, pp: Column, virtual: Column, micro: int, stage: Column
) -> Column:
    """Chunks of which a rank holds the saved activations at its fullest, the running one counted.

    Without interleaving a chunk is a whole stage.
    """
    every = micro * virtual
    if schedule == "gpipe":
        return every
    held: Column = np.minimum(pp * virtual, every)
    if schedule == "1f1b":
        warm_up = 2 * (pp - stage - 1) + (virtual - 1) * pp
        one_by_one = np.where(virtual > 1, warm_up + 1, pp - stage)
        held = np.minimum(one_by_one, every)
    return held
