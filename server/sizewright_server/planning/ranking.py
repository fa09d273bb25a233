"""Competitors ranked by an objective, each on the node count that serves it best.

Offers stand cheapest first, so the list is found in the first of them: the walk ends where no
later one can be better than the last in the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sizewright_server.estimation.profile import Column
from sizewright_server.planning.budget import Budget
from sizewright_server.planning.competitors import Competitors
from sizewright_server.planning.hours import NEVER
from sizewright_server.planning.picks import Floats, Mask, Picks
from sizewright_server.planning.plan import Choice, Objective
from sizewright_server.planning.search import Search

#: Hours beyond every job, to multiply with where the real ones are not known.
LONGEST = 1e12
#: Below 1 by more than the rounding of two products of the same three numbers.
ROUNDED = 1 - 1e-12
#: Offers looked at first; then twice as many each time.
FIRST_OFFERS = 1024
#: Of how many offers, the cheapest, the order is kept.
ORDERED_OFFERS = 4096


@dataclass(frozen=True, slots=True)
class Ranked:
    """A competitor, how many nodes of it, and what they cost an hour."""

    number: int
    nodes: int
    cost_nanos: int


class Rows(NamedTuple):
    """Competitors as columns, in the order of the keys they are ranked by. `rank`: of the name."""

    value: Floats
    cost_nanos: Column
    nodes: Column
    rank: Column
    number: Column

    def row(self, at: int) -> tuple[int, int, int]:
        """Competitor, nodes and cost of one."""
        return int(self.number[at]), int(self.nodes[at]), int(self.cost_nanos[at])

    def where(self, which: Column | Mask) -> Rows:
        """Some of them."""
        return Rows._make(column[which] for column in self)

    def first(self, most: int) -> Rows:
        """The first rows. Enough are sorted to break every tie for real."""
        rows = self
        if len(rows.value) > most:
            limit = np.partition(rows.value, most - 1)[most - 1]
            rows = rows.where(rows.value <= limit)
        keys = (rows.rank, rows.nodes, rows.cost_nanos, rows.value)
        return rows.where(np.lexsort(keys)[:most])

    def and_then(self, more: Rows) -> Rows:
        """These and others."""
        return Rows._make(np.concatenate(both) for both in zip(self, more, strict=True))


class Ranking:
    """What a search found, ranked: the node counts that fit, or those that are `tight`.

    `in_memory` says per kind of node whether it fits at any price, `nodes` on how many it is best
    at any price. `budget` limits what is rented.
    """

    def __init__(
        self,
        search: Search,
        competitors: Competitors,
        objective: Objective,
        budget: Budget,
        *,
        tight: bool = False,
    ) -> None:
        self._search, self._competitors = search, competitors
        self._levels = search.tight if tight else search.fits
        self._fewest = search.first_tight() if tight else search.first_fit()
        self._objective: Objective = objective
        self._budget = budget
        self._firsts: dict[int, list[Ranked]] = {}
        if objective == "cost-per-hour":
            # More nodes of a kind only cost more.
            self.nodes: Column = self._fewest.nodes
            self._hours: Floats = self._fewest.score
        else:
            self.nodes, self._hours = _best(self._levels, objective, len(self._fewest.nodes))
        self.in_memory: Mask = self._fewest.found

    @cached_property
    def offers_within_budget(self) -> int:
        """How many offers fit on a node count that costs no more than the budget."""
        competitors = self._competitors
        if not self._budget.limited:
            return int(competitors.offer_counts[self.in_memory].sum())
        hourly = self._budget.per_hour_nanos
        if hourly is None or self._budget.per_job_nanos is not None:
            return self._count_within_job()
        total = 0
        for nodes in self._levels:
            end = competitors.offers_up_to(hourly // nodes)
            total += int(competitors.counts_among(end)[self._fewest.nodes == nodes].sum())
        return total

    def first(self, most: int) -> list[Ranked]:
        """The first competitors, the best in front."""
        if most not in self._firsts:
            self._firsts[most] = self._find_first(most)
        return self._firsts[most]

    def _find_first(self, most: int) -> list[Ranked]:
        competitors = self._competitors
        rows = self._machines().first(most)
        start, length = 0, FIRST_OFFERS
        while start < competitors.offer_count:
            block = self._offers(start, min(start + length, competitors.offer_count))
            rows = rows.and_then(block).first(most)
            start, length = start + length, length * 2
            full = len(rows.value) == most
            if full and rows.value[-1] < self._least_value_from(start):
                break
        columns = (rows.number.tolist(), rows.nodes.tolist(), rows.cost_nanos.tolist())
        return [Ranked(*row) for row in zip(*columns, strict=True)]

    def ordered(self) -> tuple[Rows, float]:
        """Those of the cheapest offers that fit, in order, and what no other is better than."""
        count = self._competitors.offer_count
        stop = min(ORDERED_OFFERS, count)
        others = NEVER if stop == count else self._least_value_from(stop)
        return self._offers(0, stop).first(stop), others

    def choice(self, ranked: Ranked) -> Choice:
        """How a ranked competitor runs the workload."""
        kind = self._competitors.kind_of(ranked.number)
        return self._search.choice(self._levels[ranked.nodes], kind)

    def _machines(self) -> Rows:
        """The asker's own machines; before offers of the same value, and within every budget."""
        competitors = self._competitors
        kind = competitors.machine_kinds
        rank = np.arange(-len(kind), 0)
        nodes = self.nodes[kind]
        cost = competitors.machine_nanos * nodes
        number = competitors.offer_count + np.arange(len(kind))
        value = self._value(cost, self._hours[kind])
        return Rows(value, cost, nodes, rank, number).where(nodes > 0)

    def _offers(self, start: int, stop: int) -> Rows:
        """A run of offers, those that fit and are within the budget."""
        kind = self._competitors.kind[start:stop]
        number = start + np.nonzero(self.in_memory[kind])[0]
        kind = self._competitors.kind[number]
        nodes, hours = self.nodes[kind], self._hours[kind]
        nanos = self._competitors.offer_nanos(number)
        if self._budget.limited:
            self._keep_within(kind, nanos, nodes, hours)
        cost = nanos * nodes
        rows = Rows(self._value(cost, hours), cost, nodes, number, number)
        return rows.where(nodes > 0)

    def _count_within_job(self) -> int:
        """How many offers are within the budget on some node count, each looked at by itself."""
        numbers = np.arange(self._competitors.offer_count)
        kind, nanos = self._competitors.kind, self._competitors.offer_nanos(numbers)
        within = np.zeros(len(numbers), dtype=np.bool_)
        for nodes, picks in self._levels.items():
            allowed = self._budget.allows(nanos * nodes, picks.score[kind])
            within |= picks.found[kind] & allowed
        return int(within.sum())

    def _keep_within(self, kind: Column, nanos: Column, nodes: Column, hours: Floats) -> None:
        """Moves offers that cost too much to the best node count within the budget, or to none."""
        over = np.nonzero(~self._budget.allows(nanos * nodes, hours))[0]
        nodes[over] = 0
        best = np.full(len(over), NEVER)
        for count, picks in sorted(self._levels.items()):
            score = picks.score[kind[over]]
            factor = _factor(self._objective, count, score)
            within = self._budget.allows(nanos[over] * count, score)
            better = picks.found[kind[over]] & within & (factor < best)
            best[better] = factor[better]
            nodes[over[better]], hours[over[better]] = count, score[better]

    def _value(self, cost_nanos: Column, hours: Floats) -> Floats:
        """What competitors are ranked by: nano-dollars, or hours."""
        if self._objective == "cost-per-hour":
            return cost_nanos.astype(np.float64)
        if self._objective == "time":
            return hours
        value: Floats = cost_nanos.astype(np.float64) * np.minimum(hours, LONGEST)
        return value

    def _least_value_from(self, start: int) -> float:
        """What no offer from here on is better than: none costs less, none needs less."""
        if self._objective == "time" or start >= self._competitors.offer_count:
            return 0.0
        cheapest = float(self._competitors.offer_nanos(np.array([start]))[0])
        return cheapest * self._least_factor * ROUNDED

    @cached_property
    def _least_factor(self) -> float:
        """The least that any kind of node multiplies its price with."""
        nodes, hours = self.nodes[self.in_memory], self._hours[self.in_memory]
        return float(_factor(self._objective, nodes, hours).min(initial=NEVER))


def _best(levels: dict[int, Picks], objective: Objective, count: int) -> tuple[Column, Floats]:
    """Per kind the best node count at any price, and the hours it takes."""
    best_nodes = np.zeros(count, dtype=np.int64)
    best, best_hours = np.full((2, count), NEVER)
    for nodes, picks in sorted(levels.items()):
        factor = _factor(objective, nodes, picks.score)
        mine = np.nonzero(picks.found & (factor < best))[0]
        best[mine], best_hours[mine], best_nodes[mine] = factor[mine], picks.score[mine], nodes
    return best_nodes, best_hours


def _factor(objective: Objective, nodes: int | Column, hours: Floats) -> Floats:
    """What a kind of node is chosen by, up to its price."""
    if objective == "time":
        return hours
    once = np.ones_like(hours) if objective == "cost-per-hour" else np.minimum(hours, LONGEST)
    factor: Floats = nodes * once
    return factor
