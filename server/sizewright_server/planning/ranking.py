"""Competitors ranked by an objective, each on the node count that serves it best."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np

from sizewright_server.estimation.profile import Column
from sizewright_server.planning.competitors import Competitors
from sizewright_server.planning.hours import NEVER
from sizewright_server.planning.kinds import NodeKind
from sizewright_server.planning.plan import Constraints, Objective, Plan
from sizewright_server.planning.search import Choice, Floats, Picks, Search
from sizewright_server.planning.words import machine_plan_of, plan_of

#: Hours beyond every job, to multiply with where the real ones are not known.
LONGEST = 1e12


class Ranking:
    """Per competitor its best node count: `in_memory` where one fits, `allowed` where its cost is
    within the budget as well, `cost_nanos` per hour of all nodes, `value` by the objective."""

    def __init__(
        self,
        search: Search,
        levels: dict[int, Picks],
        competitors: Competitors,
        objective: Objective,
        today: date,
        constraints: Constraints,
    ) -> None:
        self._search, self._levels, self._competitors = search, levels, competitors
        self._today, self._constraints = today, constraints
        self._objective: Objective = objective
        budget = constraints.max_cost_per_hour_nanos_usd
        best = self._best_of_kinds()
        self.nodes: Column = best.nodes[competitors.kind]
        self.in_memory = self.nodes > 0
        self.cost_nanos: Column = competitors.nanos * self.nodes
        if budget is not None:
            self._keep_within(budget)
        self.allowed = self.nodes > 0
        self.value = self._values()

    def _best_of_kinds(self) -> Picks:
        """Per kind of node the best pick at any price: prices scale the value of all alike."""
        best = Picks(len(self._competitors.kinds.kinds))
        for nodes in sorted(self._levels):
            picks = self._levels[nodes]
            which = np.nonzero(picks.found)[0]
            value = _value(self._objective, nodes, picks.score[which])
            better = value < best.score[which]
            mine = which[better]
            best.score[mine], best.nodes[mine] = value[better], nodes
        return best

    def _keep_within(self, budget: int) -> None:
        """Moves offers that cost too much to the best node count within the budget, if any."""
        competitors = self._competitors
        offers = np.arange(len(self.nodes)) < competitors.offer_count
        over = np.nonzero((self.cost_nanos > budget) & offers)[0]
        self.nodes[over] = 0
        best = np.full(len(over), NEVER)
        kind = competitors.kind[over]
        for nodes in sorted(self._levels):
            picks = self._levels[nodes]
            cost = competitors.nanos[over] * nodes
            value = _value(self._objective, nodes, picks.score[kind])
            better = picks.found[kind] & (cost <= budget) & (value < best)
            best[better] = value[better]
            self.nodes[over[better]], self.cost_nanos[over[better]] = nodes, cost[better]

    def _values(self) -> Floats:
        """What each competitor is ranked by: nano-dollars, or hours."""
        if self._objective == "cost-per-hour":
            return self.cost_nanos.astype(np.float64)
        hours = np.full(len(self.nodes), NEVER)
        for nodes, picks in self._levels.items():
            mine = np.nonzero(self.nodes == nodes)[0]
            hours[mine] = picks.score[self._competitors.kind[mine]]
        if self._objective == "time":
            return hours
        return np.where(hours < NEVER, self.cost_nanos * np.minimum(hours, LONGEST), NEVER)

    def first(self, most: int) -> list[int]:
        """The first competitors. Enough are sorted to break every tie for real."""
        chosen = np.nonzero(self.allowed)[0]
        if len(chosen) > most:
            limit = np.partition(self.value[chosen], most - 1)[most - 1]
            chosen = chosen[self.value[chosen] <= limit]
        rank = self._competitors.rank[chosen]
        keys = (rank, self.nodes[chosen], self.cost_nanos[chosen], self.value[chosen])
        first: Column = chosen[np.lexsort(keys)][:most]
        return [int(at) for at in first]

    def last_cost_nanos(self, most: int) -> int | None:
        """Cost of the last in a list of `most`; None when the list is not full."""
        costs = self.cost_nanos[self.allowed]
        if len(costs) < most:
            return None
        return int(np.partition(costs, most - 1)[most - 1])

    def plan(self, at: int, soften: Callable[[Choice, NodeKind], Choice] | None = None) -> Plan:
        """A competitor's plan, its techniques softened where that is asked for."""
        nodes = int(self.nodes[at])
        kind = int(self._competitors.kind[at])
        choice = self._search.choice(self._levels[nodes], kind)
        if soften is not None:
            choice = soften(choice, self._competitors.kinds.kinds[kind])
        if self._competitors.is_offer(at):
            offer = self._competitors.offer(at)
            cost = int(self.cost_nanos[at])
            return plan_of(offer, choice, cost, self._today, self._constraints)
        return machine_plan_of(self._competitors.machine(at), choice)


def _value(objective: Objective, nodes: int, hours: Floats) -> Floats:
    """What a kind of node is chosen by, up to its price."""
    if objective == "time":
        return hours
    return nodes * (hours if objective == "cost-per-job" else np.ones_like(hours))
