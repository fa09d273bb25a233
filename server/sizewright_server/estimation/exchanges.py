"""What a block holds for the exchanges of context and expert parallelism, beside its own tensors.

Sources: ring attention as Transformer Engine's cp_comm_type "p2p" and torch's context_parallel run
it (the keys and values of one chunk compute while the next arrive; results are added up in fp32);
"all_gather" gathers the keys and values of the whole sequence; Ulysses (arXiv 2309.14509) trades
tokens for heads and back. Symbols are those of `transformer.py`; c context-parallel ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.layout import ContextMethod, Layout
from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.ops import FP32
from sizewright_server.estimation.profile import Column, Pass, elements, round_up

#: Rows of tokens repeated for each of their experts.
EXPERT_ROWS = "XK"


@dataclass(frozen=True, slots=True)
class Imbalance:
    """Tokens of the busiest expert-parallel rank over the mean."""

    low: float
    best: float
    high: float


def context_bytes(
    method: ContextMethod, dims: Mapping[str, Column], cp: Column, width: int
) -> tuple[Column, Column]:
    """Bytes held in a block's forward and backward pass; 0 where cp is 1."""
    keys = 2 * round_up(elements(("B", "S", "K"), dims) * width)
    queries = round_up(elements(("B", "S", "A"), dims) * width)
    if method == "ring":
        added = round_up(elements(("B", "S", "A"), dims) * FP32)
        forward, backward = 2 * keys + added, 4 * keys + added
    elif method == "all-gather":
        forward, backward = cp * keys, 2 * cp * keys
    else:
        forward = 2 * queries + keys
        backward = 2 * forward
    several = (cp > 1).astype(np.int64)
    return several * forward, several * backward


def imbalance(layout: Layout) -> Imbalance:
    """The stated factor, or what is met in practice; balanced where every rank has every expert.

    A capacity bounds it; padded to it, every rank has just that (core/transformer/moe/router.py).
    """
    capacity = layout.megatron.expert_capacity_factor
    if capacity is not None and layout.megatron.pad_to_capacity:
        return Imbalance(capacity, capacity, capacity)
    found = _without_capacity(layout)
    if capacity is None:
        return found
    # Tokens beyond an expert's capacity are dropped.
    return Imbalance(*(min(one, capacity) for one in (found.low, found.best, found.high)))


def _without_capacity(layout: Layout) -> Imbalance:
    if layout.ep == 1:
        return Imbalance(1.0, 1.0, 1.0)
    if layout.expert_imbalance is not None:
        stated = layout.expert_imbalance
        return Imbalance(stated, stated, stated)
    entry = _met()
    return Imbalance(entry["low"], entry["value"], entry["high"])


@cache
def _met() -> dict[str, float]:
    entry: dict[str, float] = data_of("sizewright_server.estimation", "sharding")[
        "expert_imbalance"
    ]
    return entry


def expert_bytes(segment: Segment, events: Pass, sizes: Column) -> Column:
    """Bytes a pass leaves in rows that are repeated per expert: they grow with the imbalance."""
    repeated = segment.program.kinds.having(EXPERT_ROWS)
    if not repeated.any():
        return np.zeros(sizes.shape[1], dtype=np.int64)
    rows = repeated[segment.program.kind_of_storage][events.storages] * events.signs
    total: Column = (rows[:, None] * sizes[events.storages]).sum(axis=0)
    return total
