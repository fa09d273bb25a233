"""Ranks every plan of a workload over the catalog's offers and the asker's own machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import TypeAlias

import numpy as np

from sizewright_catalog.values import Machine
from sizewright_server.estimation.preparation import AnyWorkload, prepare_any
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.planning.budget import budget_of
from sizewright_server.planning.devices import lacks, native_features
from sizewright_server.planning.eligibility import competing, eligible
from sizewright_server.planning.hours import Hours
from sizewright_server.planning.index import OfferIndex
from sizewright_server.planning.kinds import NodeKind
from sizewright_server.planning.losses import cheapest_tight, nearest_miss, rejections
from sizewright_server.planning.named import named_notices
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.own_machines import own_machines
from sizewright_server.planning.pareto import Front, front
from sizewright_server.planning.picks import Mask
from sizewright_server.planning.plan import (
    Choice,
    Constraints,
    Miss,
    Objective,
    Plan,
    PlanningResult,
    Rejection,
)
from sizewright_server.planning.ranking import Ranked, Ranking
from sizewright_server.planning.reach import Reach
from sizewright_server.planning.search import Search
from sizewright_server.planning.searching import (
    FIRST_RUN,
    MOST_KEPT_NODES,
    KeptSearches,
    kept_search,
    kept_standing,
    search_of,
)
from sizewright_server.planning.softening import Softener
from sizewright_server.planning.standing import Standing
from sizewright_server.planning.techniques import Applied
from sizewright_server.planning.tight import Tight
from sizewright_server.planning.variants import Combination, Prepare, Variant
from sizewright_server.planning.words import notices_of, stated_layout

#: Softens a choice on a kind of node.
Soften: TypeAlias = Callable[[Choice, NodeKind], Choice]
#: The technique that puts states on local disk.
ON_DISK = "nvme-offload"


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
    if question.combinations:
        planning.try_variants()
    plans, shown, tight = planning.plans(), planning.pareto(), planning.cheapest_tight()
    return PlanningResult(
        plans=plans,
        rejections=(*index.static_rejections, *planning.rejected, *planning.lost()),
        nearest_miss=planning.nearest_miss(),
        considered_offer_count=index.catalog.offer_count + len(question.machines),
        fitting_offer_count=planning.fitting,
        notices=(*notices_of(plans, tight), *named_notices(index, question.constraints)),
        pareto=shown.plans,
        pareto_count=shown.count,
        tight=tight,
    )


class Planning:
    """One question being answered."""

    def __init__(self, question: Question, index: OfferIndex) -> None:
        self.question, self.index = question, index
        features = native_features(question.prepared.workload)
        found = eligible(index, question.constraints, features, question.today)
        workload = question.prepared.workload
        machines, refused = own_machines(question.machines, question.constraints)
        self.rejected = (*found.rejections, *refused)
        disk = any(s.name == ON_DISK for _, steps in question.combinations for s in steps)
        self.competitors = competing(index, found, workload, machines, disk=disk)
        self.base = Variant(question.prepared)
        self._rankings: dict[tuple[bool, int], Ranking] = {}
        self._variants: dict[tuple[Applied, ...], Variant | None] = {(): self.base}
        self._features: dict[tuple[str, ...], Mask] = {}
        own = question.machines or question.combinations or question.hours
        large = question.constraints.max_nodes > MOST_KEPT_NODES
        self._kept = None if own or large else question.kept
        self._hourly = question.constraints.max_cost_per_hour_nanos_usd
        self.search = self._searched()
        self.standing = self._stood()
        self.fitting = self._count()

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
        question, standing = self.question, self.standing
        if standing is not None:
            asked, most = question.constraints, min(question.max_results, self.fitting)
            if most:
                return standing.plans(self.search, self.competitors, asked, question.today, most)
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
        told = front if self.standing is None else self.standing.front
        question = self.question
        return told(self.search, self.competitors, question.constraints, question.today)

    def cheapest_tight(self) -> Tight | None:
        """The cheapest plan that is tight and does not fit, by cost per hour."""
        if self.question.objective != "cost-per-hour":
            return None
        if self.standing is not None:
            return self.standing.tight(self._hourly)
        budget = budget_of(self.question.constraints)
        if budget.per_job_nanos is not None:
            # Its hours would have to be told as well.
            return None
        rankings = self._ranking(tight=True), self._ranking()
        return cheapest_tight(*rankings, self.competitors, budget.per_hour_nanos)

    def lost(self) -> tuple[Rejection, ...]:
        """What the eligible offers failed."""
        asked = self.question.constraints
        layout = stated_layout(self.question.prepared.workload)
        if self.standing is not None:
            return self.standing.lost(asked, layout, self.fitting)
        return tuple(rejections(self.search, self._ranking(), self.competitors, asked, layout))

    def nearest_miss(self) -> Miss | None:
        """Of what failed by memory alone, what lacks least."""
        standing = self.standing
        return standing.nearest_miss if standing else nearest_miss(self.search, self.competitors)

    def _stood(self) -> Standing | None:
        """Everyone's place whatever the budget, where the search is kept."""
        if self._kept is None:
            return None
        asked, layout = self.question.constraints, stated_layout(self.question.prepared.workload)
        standing = kept_standing(self.search, self.competitors, asked, layout)
        return standing if standing.serves(self.question.max_results, self._hourly) else None

    def _count(self) -> int:
        """How many offers and machines fit, within the budget."""
        if self.standing is not None:
            return self.standing.within(self._hourly)
        fits = self._ranking()
        owned = int(fits.in_memory[self.competitors.machine_kinds].sum())
        return fits.offers_within_budget + owned

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
        """The search over the request as it stands; one kept from before where it serves."""
        asked, competitors = self.question.constraints, self.competitors
        make = partial(search_of, self.base, competitors, asked, self._hours(self.base))
        if self._kept is None:
            return make(competitors.wanted)
        return kept_search(self._kept, competitors, asked, make)

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
