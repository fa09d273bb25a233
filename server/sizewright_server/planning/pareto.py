"""The Pareto front of cost per hour, free memory and nodes: no hidden score between goods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import numpy as np

from sizewright_server.estimation.profile import Column
from sizewright_server.planning.budget import Budget, budget_of
from sizewright_server.planning.competitors import Competitors
from sizewright_server.planning.picks import Floats, Mask, Picks
from sizewright_server.planning.plan import Constraints, Plan
from sizewright_server.planning.search import Search

#: Points of a front that are shown.
MOST_PLANS = 10


@dataclass(frozen=True, slots=True)
class Front:
    """The plans of a front that are shown, and how many points the whole front has."""

    plans: tuple[Plan, ...]
    count: int


def front(search: Search, competitors: Competitors, constraints: Constraints, today: date) -> Front:
    """Plans none of which another beats in all three at once, cheapest first.

    At most ten are shown, spread along the front from the cheapest to the one that leaves most
    memory free.

    Each competitor stands for every node count that was tried, under the layout that leaves most
    memory free there.
    """
    points = undominated(search, competitors, budget_of(constraints))
    plans = []
    for at in points.shown():
        number, nodes, cost = points.row(at)
        choice = search.picked(search.free[nodes], competitors.kind_of(number))
        if competitors.is_offer(number):
            offer = competitors.offer(number)
            plans.append(search.placements.plan(offer, choice, cost, today, constraints))
        else:
            plans.append(search.placements.plan_on(competitors.machine(number), choice))
    return Front(tuple(plans), len(points.nodes))


@dataclass(frozen=True, slots=True)
class Points:
    """Plans as columns."""

    cost_nanos: Column
    used_share: Floats
    nodes: Column
    competitor: Column

    def at(self, which: Column | slice) -> Points:
        """Some of them."""
        return Points(
            self.cost_nanos[which],
            self.used_share[which],
            self.nodes[which],
            self.competitor[which],
        )

    def row(self, at: int) -> tuple[int, int, int]:
        """Competitor, nodes and cost of one."""
        return int(self.competitor[at]), int(self.nodes[at]), int(self.cost_nanos[at])

    def shown(self) -> list[int]:
        """Of a front, cheapest first, the points to show: the best by each good, the last, and
        between them the middle of the longest run not shown, again and again.

        Ranks alone decide: any distance between points would weigh one good against another.
        """
        last = len(self.nodes) - 1
        if last < MOST_PLANS:
            return list(range(len(self.nodes)))
        fewest, roomiest = int(self.nodes.argmin()), int(self.used_share.argmin())
        shown = sorted({0, fewest, roomiest, last})
        while len(shown) < MOST_PLANS:
            runs = [after - before for before, after in pairwise(shown)]
            at = runs.index(max(runs))
            shown.insert(at + 1, shown[at] + runs[at] // 2)
        return shown


def _points(search: Search, competitors: Competitors, budget: Budget) -> Points:
    """Every plan that fits and is within the budget, on the cheapest competitor of its kind."""
    kind = np.nonzero(competitors.wanted)[0]
    cheapest, price = competitors.first[kind], competitors.least_nanos[kind]
    columns: list[tuple[Column, Floats, Column, Column]] = []
    for nodes, picks in search.free.items():
        cost = price * nodes
        fits = picks.found[kind]
        if budget.limited:
            owned = cheapest >= competitors.offer_count
            job = budget.per_job_nanos is not None
            hours = _hours(search, picks, kind, fits) if job else np.zeros(len(kind))
            fits = fits & (owned | budget.allows(cost, hours))
        counts = np.full(int(fits.sum()), nodes, dtype=np.int64)
        columns.append((cost[fits], picks.score[kind[fits]], counts, cheapest[fits]))
    if not columns:
        none = np.zeros(0, dtype=np.int64)
        return Points(none, none.astype(np.float64), none, none)
    cost, used, counts, at = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Points(cost, used, counts, at)


def _hours(search: Search, picks: Picks, kind: Column, fits: Mask) -> Floats:
    """The job's hours by the best estimate under the layouts that leave most memory free."""
    hours = np.zeros(len(kind))
    for at in np.nonzero(fits)[0].tolist():
        told = search.picked(picks, int(kind[at])).hours
        hours[at] = 0.0 if told is None else told[1]
    return hours


def undominated(search: Search, competitors: Competitors, budget: Budget) -> Points:
    """The front, cheapest first.

    Walked by cost, a plan is on the front when none before it with as few nodes leaves as much
    memory free.
    """
    points = _points(search, competitors, budget)
    keys = (points.competitor, points.nodes, points.used_share, points.cost_nanos)
    order = np.lexsort(keys)
    used, nodes = points.used_share[order], points.nodes[order]
    on_front = np.zeros(len(order), dtype=np.bool_)
    for count in np.unique(nodes).tolist():
        rivals = np.where(nodes <= count, used, np.inf)
        before = np.concatenate(([np.inf], np.minimum.accumulate(rivals)[:-1]))
        on_front |= (nodes == count) & (used < before)
    return points.at(order[on_front])
