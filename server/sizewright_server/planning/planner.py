"""Ranks every plan of a workload over the catalog's offers and the asker's own machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from sizewright_catalog.catalog import Ints
from sizewright_catalog.values import Machine
from sizewright_server.planning.conditions import conditions_of
from sizewright_server.planning.devices import native_features
from sizewright_server.planning.eligibility import eligible
from sizewright_server.planning.index import OfferIndex
from sizewright_server.planning.machines import fitting_machines
from sizewright_server.planning.needs import Needs, Prepared
from sizewright_server.planning.plan import (
    Constraints,
    Miss,
    Plan,
    PlanningResult,
    Rejection,
)
from sizewright_server.planning.search import NOTHING_TRIED, Decisions
from sizewright_server.planning.words import memory_rejection, miss_of, notices_of, plan_of


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the planner."""

    prepared: Prepared
    constraints: Constraints
    max_results: int
    today: date
    machines: tuple[Machine, ...] = ()


def recommend(question: Question, index: OfferIndex) -> PlanningResult:
    """Plans that fit, cheapest first; plans that are tight when none fits.

    Ties are broken by nodes, provider, region, type and term, the same way every time.
    """
    prepared, constraints = question.prepared, question.constraints
    positions, rejections = eligible(
        index, constraints, native_features(prepared.workload), question.today
    )
    ranked = _Ranked(question, index, positions)
    owned = fitting_machines(prepared, question.machines, constraints)
    plans = ranked.plans(owned)
    rejections = [*index.static_rejections, *rejections, *ranked.rejections()]
    return PlanningResult(
        plans=plans,
        rejections=tuple(rejections),
        nearest_miss=ranked.nearest_miss(),
        considered_offer_count=index.catalog.offer_count + len(question.machines),
        fitting_offer_count=ranked.fitting + sum(p.verdict == "fits" for p in owned),
        notices=notices_of(plans, ranked.cheapest_tight_nanos()),
    )


class _Ranked:
    """The eligible offers with the decision of their kind of node."""

    def __init__(self, question: Question, index: OfferIndex, positions: Ints) -> None:
        self.question, self.index, self.positions = question, index, positions
        conditions = conditions_of(question.prepared.workload.host)
        kinds, kind_of_offer = index.kinds(conditions)
        self.kind = kind_of_offer[positions]
        wanted = np.zeros(len(kinds.kinds), dtype=np.bool_)
        wanted[self.kind] = True
        needs = Needs(question.prepared, self._sizes(kinds.per_node[wanted]))
        self.decisions = Decisions(needs, kinds, question.constraints, wanted)
        nanos = index.nanos[positions]
        self.fit_nanos = nanos * self.decisions.fit_nodes[self.kind]
        self.tight_nanos = nanos * self.decisions.tight_nodes[self.kind]
        budget = question.constraints.max_cost_per_hour_nanos_usd
        within = np.ones(len(positions), dtype=np.bool_)
        self.in_memory = self.fit_nanos > 0
        self.affordable = within if budget is None else self.fit_nanos <= budget
        self.fitting = int((self.in_memory & self.affordable).sum())

    def plans(self, owned: Sequence[Plan]) -> tuple[Plan, ...]:
        """The cheapest that fit, offers and machines together; the tight ones when none does."""
        budget = self.question.constraints.max_cost_per_hour_nanos_usd
        found = self._cheapest(self.fit_nanos, self.in_memory & self.affordable, tight=False)
        machines = [plan for plan in owned if plan.verdict == "fits"]
        if not found and not machines:
            allowed = (self.tight_nanos > 0) & (budget is None or self.tight_nanos <= (budget or 0))
            found = self._cheapest(self.tight_nanos, allowed, tight=True)
            machines = [plan for plan in owned if plan.verdict == "tight"]
        merged = sorted([*machines, *found], key=lambda plan: plan.cost_per_hour_nanos_usd)
        return tuple(merged[: self.question.max_results])

    def cheapest_tight_nanos(self) -> int | None:
        """Cost of the cheapest plan that is tight and does not fit."""
        tight = (self.tight_nanos > 0) & (self.fit_nanos == 0)
        return int(self.tight_nanos[tight].min()) if tight.any() else None

    def rejections(self) -> list[Rejection]:
        """What the eligible offers failed: layouts, memory, budget."""
        decisions, lost = self.decisions, self.fit_nanos == 0
        untried = decisions.lack_bytes[self.kind] == NOTHING_TRIED
        on_gpu = decisions.failed_gpu[self.kind]
        made = []
        counts = {
            "layout": int((lost & untried).sum()),
            "gpu-memory": int((lost & ~untried & on_gpu).sum()),
            "host-memory": int((lost & ~untried & ~on_gpu).sum()),
            "budget": int((self.in_memory & ~self.affordable).sum()),
        }
        for constraint, count in counts.items():
            if count:
                made.append(memory_rejection(constraint, count, self.question.constraints))
        return made

    def nearest_miss(self) -> Miss | None:
        """Of the kinds that failed by memory alone, the one that lacks least, at its cheapest."""
        decisions = self.decisions
        lost = (decisions.fit_nodes == 0) & (decisions.lack_bytes < NOTHING_TRIED)
        if not lost.any():
            return None
        kind = int(np.where(lost, decisions.lack_bytes, NOTHING_TRIED).argmin())
        mine = np.nonzero(self.kind == kind)[0]
        position = int(self.positions[mine[self.index.nanos[self.positions[mine]].argmin()]])
        offer = self.index.catalog.offer(int(self.index.offers[position]))
        return miss_of(offer, decisions.nearest(kind), int(decisions.lack_bytes[kind]))

    def _cheapest(self, nanos: Ints, allowed: Ints, *, tight: bool) -> list[Plan]:
        """The first offers by cost and names. Enough are sorted to break every tie for real."""
        chosen = np.nonzero(allowed)[0]
        most = self.question.max_results
        if len(chosen) > most:
            limit = np.partition(nanos[chosen], most - 1)[most - 1]
            chosen = chosen[nanos[chosen] <= limit]
        nodes = self.decisions.tight_nodes if tight else self.decisions.fit_nodes
        rank = self.index.order[self.positions[chosen]]
        order = np.lexsort((rank, nodes[self.kind[chosen]], nanos[chosen]))
        plans = []
        for at in chosen[order][:most].tolist():
            kind = int(self.kind[at])
            choice = self.decisions.tight(kind) if tight else self.decisions.fits(kind)
            offer = self.index.catalog.offer(int(self.index.offers[self.positions[at]]))
            plans.append(
                plan_of(
                    offer, choice, int(nanos[at]), self.question.today, self.question.constraints
                )
            )
        return plans

    def _sizes(self, per_node_counts: Ints) -> list[tuple[int, int]]:
        counts = sorted(set(per_node_counts.tolist()))
        nodes = range(1, self.question.constraints.max_nodes + 1)
        return [(per_node, n) for n in nodes for per_node in counts]
