"""Ranks every plan of a workload over the catalog's offers and the asker's own machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

import numpy as np

from sizewright_catalog.values import Machine
from sizewright_server.estimation.preparation import AnyWorkload, prepare_any
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.planning.budget import budget_of
from sizewright_server.planning.competitors import Competitors
from sizewright_server.planning.devices import lacks, loading_of, native_features
from sizewright_server.planning.eligibility import eligible
from sizewright_server.planning.hours import Hours
from sizewright_server.planning.index import OfferIndex
from sizewright_server.planning.kinds import KindColumns, NodeKind
from sizewright_server.planning.losses import cheapest_tight, nearest_miss, rejections
from sizewright_server.planning.named import named_notices
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.own_machines import own_machines
from sizewright_server.planning.pareto import Front, front
from sizewright_server.planning.picks import Mask
from sizewright_server.planning.plan import (
    Choice,
    Constraints,
    Objective,
    Plan,
    PlanningResult,
    Rejection,
)
from sizewright_server.planning.ranking import Ranked, Ranking
from sizewright_server.planning.reach import Reach
from sizewright_server.planning.search import Search
from sizewright_server.planning.softening import Softener
from sizewright_server.planning.techniques import Applied
from sizewright_server.planning.variants import Combination, Prepare, Variant
from sizewright_server.planning.words import Tight, notices_of, stated_layout

#: Node counts are tried in runs of this length, each run estimated in one walk.
FIRST_RUN = 4


#: Softens a choice on a kind of node.
Soften: TypeAlias = Callable[[Choice, NodeKind], Choice]
#: The technique that puts states on local disk.
ON_DISK = "nvme-offload"
#: Searches kept of one workload: each for other limits on memory, nodes or GPUs.
MOST_KEPT = 8
#: Searches by what shapes them.
KeptSearches: TypeAlias = dict[
    tuple[KindColumns, float, tuple[int, int], tuple[int, int | None], bool], Search
]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the planner. `combinations` are the techniques it may use (`strongest`).

    `hours` tells the hours of a variant's job; None where no job is stated. `kept` holds what was
    searched for the same prepared workload before.
    """

    prepared: Prepared
    constraints: Constraints
    max_results: int
    today: date
    machines: tuple[Machine, ...] = ()
    objective: Objective = "cost-per-hour"
    combinations: tuple[Combination, ...] = ()
    hours: Callable[[Variant], Hours] | None = None
    prepare: Prepare = prepare_any
    kept: KeptSearches | None = None


def recommend(question: Question, index: OfferIndex) -> PlanningResult:
    """Plans that fit, best first by the objective; plans that are tight when none fits.

    Of plans that cost the same on as many nodes, the first has a listed price, more vCPUs, more
    host memory; then names decide, so that the order is the same every time.
    """
    planning = Planning(question, index)
    planning.try_variants()
    plans, shown = planning.plans(), planning.pareto()
    return PlanningResult(
        plans=plans,
        rejections=(*index.static_rejections, *planning.rejected, *planning.lost()),
        nearest_miss=nearest_miss(planning.search, planning.competitors),
        considered_offer_count=index.catalog.offer_count + len(question.machines),
        fitting_offer_count=planning.fitting,
        notices=(
            *notices_of(
                plans,
                planning.cheapest_tight() if question.objective == "cost-per-hour" else None,
            ),
            *named_notices(index, question.constraints),
        ),
        pareto=shown.plans,
        pareto_count=shown.count,
    )


class Planning:
    """One question being answered."""

    def __init__(self, question: Question, index: OfferIndex) -> None:
        self.question, self.index = question, index
        features = native_features(question.prepared.workload)
        positions, self.rejected = eligible(index, question.constraints, features, question.today)
        workload = question.prepared.workload
        machines, refused = own_machines(question.machines, question.constraints)
        self.rejected += refused
        disk = any(s.name == ON_DISK for _, steps in question.combinations for s in steps)
        self.competitors = Competitors(index, positions, workload, machines, disk=disk)
        self.base = Variant(question.prepared)
        self._rankings: dict[tuple[bool, int], Ranking] = {}
        self._variants: dict[tuple[Applied, ...], Variant | None] = {(): self.base}
        self._features: dict[tuple[str, ...], Mask] = {}
        self.search = self._searched()
        fits = self._ranking()
        owned = int(fits.in_memory[self.competitors.machine_kinds].sum())
        self.fitting = fits.offers_within_budget + owned

    def try_variants(self) -> None:
        """Brings in each combination of techniques where it can still change the list.

        The strongest come first; one with fewer of the same techniques is not tried on kinds that
        they left beyond reach.
        """
        reach = Reach(self.search.kinds)
        for number, (workload, steps) in enumerate(self.question.combinations, start=1):
            supported = self._supported(workload) & self.competitors.wanted
            most, start, length = self.question.constraints.max_nodes, 1, FIRST_RUN
            while start <= most:
                run = range(start, min(start + length, most + 1))
                self._try_on(number, workload, steps, run, supported, reach)
                start, length = start + length, length * 2

    def _try_on(
        self,
        number: int,
        workload: AnyWorkload,
        steps: tuple[Applied, ...],
        run: range,
        supported: Mask,
        reach: Reach,
    ) -> None:
        """Brings in a combination on a run of node counts, all of them estimated in one walk."""
        able = {n: supported & self._can_improve(n) for n in run}
        within = {n: reach.within(steps, n, kinds) for n, kinds in able.items()}
        open_kinds = {n: kinds for n, kinds in within.items() if kinds.any()}
        variant = self._prepared(workload, steps) if open_kinds else None
        if variant is None:
            return
        hours, needs = self._hours(variant), self.search.needs_of(variant, open_kinds)
        for nodes, before in open_kinds.items():
            # What fits on fewer nodes by now is no longer looked at on more.
            only = before & self._can_improve(nodes)
            if only.any():
                nearest = self.search.add(
                    number, variant, [nodes], only=only, hours=hours, needs=needs
                )
                reach.note(steps, nodes, nearest)

    def plans(self) -> tuple[Plan, ...]:
        """The best that fit, offers and machines together; the tight ones when none does."""
        question = self.question
        ranking = self._ranking()
        ranked = ranking.first(question.max_results)
        if not ranked:
            ranking = self._ranking(tight=True)
            ranked = ranking.first(question.max_results)
        soften = None
        if question.combinations and question.hours is None:
            workload = question.prepared.workload
            soften = Softener(workload, self._prepared, question.constraints).softened
        return tuple(self._plan(one, ranking.choice(one), soften) for one in ranked)

    def pareto(self) -> Front:
        """Plans that no other beats in cost, free memory and nodes at once."""
        return front(self.search, self.competitors, self.question.constraints, self.question.today)

    def cheapest_tight(self) -> Tight | None:
        """The cheapest plan that is tight and does not fit."""
        budget = budget_of(self.question.constraints)
        if budget.per_job_nanos is not None:
            # Its hours would have to be told as well.
            return None
        rankings = self._ranking(tight=True), self._ranking()
        return cheapest_tight(*rankings, self.competitors, budget.per_hour_nanos)

    def lost(self) -> list[Rejection]:
        """What the eligible offers failed."""
        asked = self.question.constraints
        layout = stated_layout(self.question.prepared.workload)
        return rejections(self.search, self._ranking(), self.competitors, asked, layout)

    def _plan(self, ranked: Ranked, choice: Choice, soften: Soften | None) -> Plan:
        """A competitor's plan, its techniques softened where that is asked for."""
        question, competitors = self.question, self.competitors
        if soften is not None:
            choice = soften(choice, competitors.kinds.kinds[competitors.kind_of(ranked.number)])
        placements = self.search.placements
        if not competitors.is_offer(ranked.number):
            return placements.plan_on(competitors.machine(ranked.number), choice)
        offer, cost = competitors.offer(ranked.number), ranked.cost_nanos
        return placements.plan(offer, choice, cost, question.today, question.constraints)

    def _searched(self) -> Search:
        """The search over the request as it stands; one kept from before where it serves.

        Only limits on memory, nodes and GPUs shape a search. One over more kinds of node serves
        as well: what it found of the others is nobody's.
        """
        asked, question, competitors = self.question.constraints, self.question, self.competitors
        kept = question.kept
        if kept is None or question.machines or question.combinations or question.hours:
            return self._search_of(competitors.wanted)
        nodes, gpus = (asked.min_nodes, asked.max_nodes), (asked.min_gpus, asked.max_gpus)
        key = (competitors.kinds, asked.headroom, nodes, gpus, asked.allow_unknown_network)
        found = kept.get(key)
        if found is None or (competitors.wanted & ~found.wanted).any():
            wanted = competitors.wanted if found is None else competitors.wanted | found.wanted
            found = self._search_of(wanted)
            if len(kept) >= MOST_KEPT:
                kept.pop(next(iter(kept)), None)
            kept[key] = found
        return found

    def _search_of(self, wanted: Mask) -> Search:
        """Every layout of the request as it stands, on every node count that can matter."""
        loading = loading_of(self.question.prepared.workload)
        search = Search(self.competitors.kinds, self.question.constraints, wanted, loading)
        hours = self._hours(self.base)
        most, start, length = self.question.constraints.max_nodes, 1, FIRST_RUN
        while start <= most:
            run = range(start, min(start + length, most + 1))
            # More of a kind of node that fits already only costs more.
            only = ~search.first_fit().found if start > 1 and hours is None else None
            if only is not None and not (only & wanted).any():
                break
            search.add(0, self.base, run, only=only, hours=hours)
            start, length = start + length, length * 2
        return search

    def _can_improve(self, nodes: int) -> Mask:
        """Kinds that on so many nodes could still enter the list.

        By cost per hour: those whose cheapest competitor would cost no more than the last in the
        list now, and that do not fit on as few nodes already. By hours: all.
        """
        if self.question.hours is not None:
            return self.competitors.wanted
        first = self.search.first_fit()
        better = ~first.found | (first.nodes > nodes)
        ranked = self._ranking().first(self.question.max_results)
        if len(ranked) < self.question.max_results:
            return better
        cheapest: Mask = self.competitors.least_nanos * nodes <= ranked[-1].cost_nanos
        return better & cheapest

    def _prepared(self, workload: AnyWorkload, steps: tuple[Applied, ...]) -> Variant | None:
        """The changed workload; None for a combination that this model cannot take."""
        if steps not in self._variants:
            try:
                self._variants[steps] = Variant(self.question.prepare(workload), steps)
            except UnsupportedWorkload:
                self._variants[steps] = None
        return self._variants[steps]

    def _supported(self, workload: AnyWorkload) -> Mask:
        """Kinds whose device has what a changed workload asks for."""
        features = native_features(workload)
        if features not in self._features:
            devices = [kind.device for kind in self.competitors.kinds.kinds]
            able = [d is None or not lacks(d, features) for d in devices]
            self._features[features] = np.array(able, dtype=np.bool_)
        return self._features[features]

    def _hours(self, variant: Variant) -> Hours | None:
        return None if self.question.hours is None else self.question.hours(variant)

    def _ranking(self, *, tight: bool = False) -> Ranking:
        """The ranking of what was found so far."""
        state = (tight, self.search.rounds)
        if state not in self._rankings:
            question, competitors = self.question, self.competitors
            budget = budget_of(question.constraints)
            made = Ranking(self.search, competitors, question.objective, budget, tight=tight)
            self._rankings[state] = made
        return self._rankings[state]
