"""The list that is found in the first offers is the one that sorting all of them gives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewright_server.planning.budget import Budget
from sizewright_server.planning.hours import NEVER
from sizewright_server.planning.picks import Picks, fewest
from sizewright_server.planning.plan import Objective
from sizewright_server.planning.ranking import FIRST_OFFERS, Ranking

KINDS = 5
OBJECTIVES: tuple[Objective, ...] = ("cost-per-hour", "cost-per-job", "time")


def world(seed: int, offers: int, dear: int) -> tuple[Any, Any]:
    """A search of two node counts; offers of five kinds, cheapest first; and two machines."""
    random = np.random.default_rng(seed)
    levels = {}
    for nodes in (1, 2):
        levels[nodes] = Picks(KINDS + 2)
        which = np.nonzero(random.random(KINDS + 2) < 0.6)[0]
        hours = random.integers(1, 9, len(which)).astype(np.float64)
        levels[nodes].offer(which, hours, 0, nodes, np.zeros(len(which), dtype=np.int64))
    # Much the same prices, and kinds that begin late: the best is often not among the cheapest.
    nanos = np.sort(random.integers(max(1, dear * 2 // 3), dear, offers))
    kind = random.permutation(KINDS)[np.sort(random.integers(0, KINDS, offers))]
    competitors = SimpleNamespace(
        kinds=SimpleNamespace(kinds=range(KINDS + 2)),
        kind=kind,
        offer_count=offers,
        offer_counts=np.bincount(kind, minlength=KINDS + 2),
        offer_nanos=lambda numbers: nanos[numbers],
        machine_kinds=np.array([KINDS, KINDS + 1]),
        machine_nanos=random.integers(1, dear, 2),
        offers_up_to=lambda most: int(np.searchsorted(nanos, most, side="right")),
        counts_among=lambda end: np.bincount(kind[:end], minlength=KINDS + 2),
    )
    first = fewest(levels, KINDS + 2)
    return SimpleNamespace(fits=levels, first_fit=lambda: first), competitors


def sorted_out(
    search: Any, competitors: Any, objective: Objective, budget: int | None, most: int
) -> list[tuple[int, int, int]]:
    """Number, nodes and cost of the first, every node count of every competitor looked at."""
    rows = []
    everyone = [*competitors.kind.tolist(), *competitors.machine_kinds.tolist()]
    prices = [*competitors.offer_nanos(slice(None)).tolist(), *competitors.machine_nanos.tolist()]
    for number, (kind, price) in enumerate(zip(everyone, prices, strict=True)):
        rented = number < competitors.offer_count
        found = []
        for nodes, picks in search.fits.items():
            hours, cost = float(picks.score[kind]), price * nodes
            if hours == NEVER or (rented and budget is not None and cost > budget):
                continue
            value = {"cost-per-hour": cost, "cost-per-job": cost * hours, "time": hours}[objective]
            found.append((value, nodes, cost))
        if found:
            value, nodes, cost = min(found, key=lambda one: (one[0], one[1]))
            rank = number if rented else number - len(everyone)
            rows.append(((value, cost, nodes, rank), (number, nodes, cost)))
    return [row for _, row in sorted(rows)[:most]]


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    offers=st.sampled_from([0, 1, 7, FIRST_OFFERS - 1, FIRST_OFFERS, 3 * FIRST_OFFERS + 5]),
    dear=st.sampled_from([3, 40, 10**12]),
    most=st.integers(1, 30),
    limit=st.sampled_from([None, 0.1, 0.6]),
    objective=st.sampled_from(OBJECTIVES),
)
def test_the_first_of_a_list_are_those_of_all_sorted(
    seed: int, offers: int, dear: int, most: int, limit: float | None, objective: Objective
) -> None:
    search, competitors = world(seed, offers, dear)
    budget = None if limit is None else int(limit * dear)

    ranking = Ranking(search, competitors, objective, Budget(budget))

    found = [(one.number, one.nodes, one.cost_nanos) for one in ranking.first(most)]
    assert found == sorted_out(search, competitors, objective, budget, most)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_offers_within_a_budget_are_counted_as_if_one_by_one(objective: Objective) -> None:
    for seed in range(20):
        search, competitors = world(seed, 500, 1000)
        everyone = sorted_out(search, competitors, objective, 400, 10**6)
        rented = [number for number, _, _ in everyone if number < competitors.offer_count]

        ranking = Ranking(search, competitors, objective, Budget(400))

        assert ranking.offers_within_budget == len(rented)
