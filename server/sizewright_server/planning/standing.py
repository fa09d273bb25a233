"""What a search found among offers, found once whatever may be spent.

Questions about a workload that was asked about before mostly differ in what may be spent, in how
many plans are wanted and in how old a price may be. By cost per hour a budget only cuts off an end:
more nodes of a kind only cost more, so the list is the beginning of all that fits; and as only a
cheaper plan keeps another from the Pareto front, so is the front. What the rest failed, the nearest
miss and the cheapest tight plan know of no budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sizewright_catalog.values import Offer
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.budget import Budget
from sizewright_server.planning.competitors import Competitors
from sizewright_server.planning.losses import cheapest_tight, nearest_miss, rejections
from sizewright_server.planning.pareto import Front, undominated
from sizewright_server.planning.picks import Picks
from sizewright_server.planning.plan import Choice, Constraints, Plan, Rejection
from sizewright_server.planning.ranking import Ranking
from sizewright_server.planning.search import Search
from sizewright_server.planning.tight import Tight
from sizewright_server.planning.words import memory_rejection


@dataclass(frozen=True, slots=True)
class _Way:
    """An offer, how the workload runs on it, and what that costs an hour."""

    offer: Offer
    choice: Choice
    cost_nanos: int


class Standing:
    """Places by cost per hour among offers alone: of one search and of those that compete in it.

    It holds no competitors, so that it is kept no longer than they are: calls bring them.
    """

    def __init__(
        self,
        search: Search,
        competitors: Competitors,
        constraints: Constraints,
        layout: Layout | None,
    ) -> None:
        fits = Ranking(search, competitors, "cost-per-hour", Budget())
        tight = Ranking(search, competitors, "cost-per-hour", Budget(), tight=True)
        self._fitting = fits.offers_within_budget
        self._rows, self._others = fits.ordered()
        self._costs = self._rows.cost_nanos
        self._points = undominated(search, competitors, Budget())
        self._listed: dict[int, _Way] = {}
        self._on_front: dict[int, _Way] = {}
        self._tight = cheapest_tight(tight, fits, competitors, None)
        self.nearest_miss = nearest_miss(search, competitors)
        self._lost = tuple(rejections(search, fits, competitors, constraints, layout))

    def serves(self, most: int, budget: int | None) -> bool:
        """Whether enough offers stand in order for a list of so many and for its count."""
        if budget is not None:
            return budget < self._others
        if most <= len(self._costs):
            return bool(self._costs[most - 1] < self._others)
        return len(self._costs) == self._fitting

    def within(self, budget: int | None) -> int:
        """How many offers fit within a budget that it serves."""
        if budget is None:
            return self._fitting
        return int(self._costs.searchsorted(budget, side="right"))

    def plans(
        self, search: Search, competitors: Competitors, asked: Constraints, today: date, most: int
    ) -> tuple[Plan, ...]:
        """The first `most`, no more than are within the budget."""
        ways, plan = self._listed, search.placements.plan
        made = []
        for at in range(most):
            way = ways.get(at)
            if way is None:
                row = self._rows.row(at)
                way = ways[at] = _way(search, search.fits, competitors, *row)
            made.append(plan(way.offer, way.choice, way.cost_nanos, today, asked))
        return tuple(made)

    def front(
        self, search: Search, competitors: Competitors, asked: Constraints, today: date
    ) -> Front:
        """The Pareto front within the budget that is asked for."""
        points, budget = self._points, asked.max_cost_per_hour_nanos_usd
        if budget is not None:
            points = points.at(slice(points.cost_nanos.searchsorted(budget, side="right")))
        ways, plan = self._on_front, search.placements.plan
        made = []
        for at in points.shown():
            way = ways.get(at)
            if way is None:
                way = ways[at] = _way(search, search.free, competitors, *points.row(at))
            made.append(plan(way.offer, way.choice, way.cost_nanos, today, asked))
        return Front(tuple(made), len(points.nodes))

    def lost(self, asked: Constraints, layout: Layout | None, within: int) -> tuple[Rejection, ...]:
        """What the eligible offers failed, last the budget that so many are within."""
        dear = self._fitting - within
        if not dear:
            return self._lost
        return (*self._lost, memory_rejection("budget", dear, asked, layout))

    def tight(self, budget: int | None) -> Tight | None:
        """The cheapest plan that is tight and does not fit; where it costs too much, all do."""
        tight = self._tight
        if tight is None or budget is None or tight.cost_per_hour_nanos_usd <= budget:
            return tight
        return None


def _way(
    search: Search,
    levels: dict[int, Picks],
    competitors: Competitors,
    number: int,
    nodes: int,
    cost_nanos: int,
) -> _Way:
    choice = search.choice if levels is search.fits else search.picked
    kind = competitors.kind_of(number)
    return _Way(competitors.offer(number), choice(levels[nodes], kind), cost_nanos)
