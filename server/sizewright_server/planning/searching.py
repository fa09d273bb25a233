"""Searches over a request as it stands, and what is kept of them for the next question."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from sizewright_server.estimation.kept import keep
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.competitors import Competitors
from sizewright_server.planning.devices import loading_of
from sizewright_server.planning.hours import Hours
from sizewright_server.planning.kinds import KindColumns
from sizewright_server.planning.picks import Mask
from sizewright_server.planning.plan import Constraints
from sizewright_server.planning.search import Search
from sizewright_server.planning.standing import Standing
from sizewright_server.planning.variants import Variant

#: Node counts are tried in runs of this length, each run estimated in one walk.
FIRST_RUN = 4
#: Searches kept of one workload: each for other limits on memory, nodes or GPUs.
MOST_KEPT = 8
#: One over more nodes is not kept: a number of nodes takes 30 to 50 KB (measured).
MOST_KEPT_NODES = 16
#: Kept of each search: who stands where among those that names and ages leave.
MOST_STANDINGS = 16
#: Searches by what shapes them.
KeptSearches: TypeAlias = dict[
    tuple[KindColumns, float, tuple[int, int], tuple[int, int | None], bool], Search
]


def search_of(
    base: Variant, competitors: Competitors, asked: Constraints, hours: Hours | None, wanted: Mask
) -> Search:
    """Every layout of the request as it stands, on every node count that can matter."""
    search = Search(competitors.kinds, asked, wanted, loading_of(base.prepared.workload))
    start, length = 1, FIRST_RUN
    while start <= asked.max_nodes:
        run = range(start, min(start + length, asked.max_nodes + 1))
        # More of a kind of node that fits already only costs more.
        only = ~search.first_fit().found if start > 1 and hours is None else None
        if only is not None and not (only & wanted).any():
            break
        search.add(0, base, run, only=only, hours=hours)
        start, length = start + length, length * 2
    return search


def kept_search(
    kept: KeptSearches, competitors: Competitors, asked: Constraints, make: Callable[[Mask], Search]
) -> Search:
    """A search kept from before where it serves, else one that is made, over kinds that it names.

    Only limits on memory, nodes and GPUs shape a search. One over more kinds of node serves as
    well: what it found of the others is nobody's.
    """
    nodes, gpus = (asked.min_nodes, asked.max_nodes), (asked.min_gpus, asked.max_gpus)
    key = (competitors.kinds, asked.headroom, nodes, gpus, asked.allow_unknown_network)
    found = kept.get(key)
    if found is None or (competitors.wanted & ~found.wanted).any():
        found = make(competitors.wanted if found is None else competitors.wanted | found.wanted)
        keep(kept, key, found, MOST_KEPT)
    return found


def kept_standing(
    search: Search, competitors: Competitors, asked: Constraints, layout: Layout | None
) -> Standing:
    """Who stands where under a search that is kept; found by the first who asks."""
    standing = search.standings.get(competitors)
    if standing is None:
        standing = Standing(search, competitors, asked, layout)
        if len(search.standings) >= MOST_STANDINGS:
            search.standings.clear()
        search.standings[competitors] = standing
    return standing
