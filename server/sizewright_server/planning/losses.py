"""What became of the competitors that are not in the list: counts, the nearest miss, the tight."""

from __future__ import annotations

import numpy as np

from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.competitors import Competitors
from sizewright_server.planning.picks import Mask
from sizewright_server.planning.plan import Constraints, Miss, Rejection
from sizewright_server.planning.ranking import Ranking
from sizewright_server.planning.search import NOTHING_TRIED, Search
from sizewright_server.planning.tight import Tight
from sizewright_server.planning.words import memory_rejection, miss_of


def rejections(
    search: Search,
    fits: Ranking,
    competitors: Competitors,
    constraints: Constraints,
    layout: Layout | None,
) -> list[Rejection]:
    """What the eligible offers failed: network, layouts, memory, speed, budget.

    `layout` is the one the request states with all its sizes.
    """
    offers, lost = competitors.offer_counts, ~fits.in_memory
    # More nodes of them were not tried: how these reach each other is not known.
    several = constraints.max_nodes > 1 and not constraints.allow_unknown_network
    alone = lost & ~competitors.kinds.connected & several
    lost = lost & ~alone
    lacks_bytes, on_gpu = search.near.score, search.near_on_gpu
    untried, short = lacks_bytes >= NOTHING_TRIED, lacks_bytes > 0
    # What was looked at and is beyond any memory lacks disk.
    no_disk = untried & search.near.found
    nowhere = lost & untried & ~no_disk
    kinds = {
        "network-between-nodes": alone,
        "local-disk": lost & no_disk,
        "gpu-count": nowhere & _other_gpus(search, constraints),
        "layout": nowhere & ~_other_gpus(search, constraints),
        "gpu-memory": lost & ~untried & short & on_gpu,
        "host-memory": lost & ~untried & short & ~on_gpu,
        "speed-unknown": lost & ~short,
    }
    counts = {constraint: int(offers[mask].sum()) for constraint, mask in kinds.items()}
    counts["budget"] = int(offers[fits.in_memory].sum()) - fits.offers_within_budget
    return [
        memory_rejection(constraint, count, constraints, layout)
        for constraint, count in counts.items()
        if count
    ]


def _other_gpus(search: Search, asked: Constraints) -> Mask:
    """Kinds of node that no number of nodes brings within the GPUs that are asked for."""
    per_node = search.kinds.per_node
    few: Mask = per_node * asked.max_nodes < asked.min_gpus
    return few if asked.max_gpus is None else few | (per_node > asked.max_gpus)


def nearest_miss(search: Search, competitors: Competitors) -> Miss | None:
    """Of the kinds that failed by memory alone, the one that lacks least, at its cheapest."""
    near = search.near
    short = (near.score > 0) & (near.score < NOTHING_TRIED)
    lost = ~search.first_fit().found & short & (competitors.offer_counts > 0)
    if not lost.any():
        return None
    kind = int(np.where(lost, near.score, NOTHING_TRIED).argmin())
    offer = competitors.offer(int(competitors.first[kind]))
    return miss_of(offer, search.choice(near, kind), int(near.score[kind]))


def cheapest_tight(
    tight: Ranking, fits: Ranking, competitors: Competitors, budget: int | None
) -> Tight | None:
    """The cheapest plan that is tight and does not fit."""
    cost = competitors.least_nanos * tight.nodes
    only = tight.in_memory & ~fits.in_memory & competitors.wanted
    if budget is not None:
        within = cost <= budget
        within[competitors.machine_kinds] = True
        only &= within
    kinds = np.nonzero(only)[0]
    if not len(kinds):
        return None
    kind = int(kinds[np.lexsort((competitors.first[kinds], cost[kinds]))[0]])
    number = int(competitors.first[kind])
    nodes = int(tight.nodes[kind])
    if not competitors.is_offer(number):
        return Tight(competitors.machine(number), nodes, 0)
    return Tight(competitors.offer(number).instance_type, nodes, int(cost[kind]))
