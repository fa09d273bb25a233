"""Advice: techniques that would change the answer, found by planning the changed workload."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations as sets_of

from sizewright_server.estimation.memory import Notice
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.planning.advice_words import dropped, outcome, room, time_words, together
from sizewright_server.planning.comparing import (
    CPU_ONLY,
    gpu_buys,
    own_layout,
    ranks_of,
    saved_between,
    saved_bytes,
    time_factor,
    work_cost_factor,
)
from sizewright_server.planning.hours import Hours
from sizewright_server.planning.index import OfferIndex
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.objectives import value_of
from sizewright_server.planning.plan import Advice, Miss, Objective, Plan, PlanningResult
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.planning.prices import details_of
from sizewright_server.planning.promising import MOST_SEARCHED, bounded, promising, too_many
from sizewright_server.planning.techniques import Applied, figures, forms
from sizewright_server.planning.variants import (
    Combination,
    Variant,
    combine,
    single_steps,
    strongest,
)

#: Pieces of advice in one answer that make it cheaper, or make it fit.
MOST_ADVICE = 8
#: Pieces that only free memory, and the share of the fuller pool they must free.
MOST_ROOM = 4
LEAST_ROOM = 0.1
#: Those that take longer than this do not come at the same price.
SAME_TIME = 1.1
#: Exact techniques that take many times as long are not put together with others.
SLOW = frozenset(
    {"optimizer-offload", "nvme-offload", "external-memory", "cpu-only", "smaller-batch"}
)
#: More combinations than this take seconds to search.
MOST_COMBINATIONS = 512


class Advisor:
    """Plans one question again with changes. `index_of` tells the offers a workload runs on."""

    def __init__(
        self,
        question: Question,
        index_of: Callable[[AnyWorkload], OfferIndex],
        result: PlanningResult,
    ) -> None:
        self.question, self.index_of = question, index_of
        self.aim: Objective = question.objective
        fits = result.plans and result.plans[0].verdict == "fits"
        self.before: Plan | None = result.plans[0] if fits else None
        self.miss = result.nearest_miss
        #: What was not looked at, in words.
        self.notices: list[Notice] = []
        allowed = {step.name for _, steps in question.combinations for step in steps}
        #: Techniques the plan could have used, which were searched with every other.
        self.allowed = [name for name in figures() if name in allowed]

    def advice(self) -> tuple[Advice, ...]:
        """What makes the best plan better, or one fit; then what only frees memory."""
        base = self.question.prepared.workload
        left_out = {*self.allowed} if self.before else {*self.allowed, CPU_ONLY}
        singles = [pair for pair in single_steps(base) if pair[1][0].name not in left_out]
        found = self._tried(singles)
        if self.before is None:
            found = found or self._tried(self._together(2))
            if self.miss is not None and not found:
                found = self._tried(self._triples(self.miss))
        better = [one for one in found if one.plan is not None]
        better.sort(key=partial(_preference, self.aim))
        jointly = self._exact_together(better)
        return (*jointly, *better[:MOST_ADVICE], *self._roomy(found, better))

    def _exact_together(self, better: list[Advice]) -> list[Advice]:
        """Techniques that leave results alone and do more together than any piece alone.

        The planner's own search over every combination of them: it keeps as few as are needed.
        """
        before, base = self.before, self.question.prepared.workload
        names = [n for n, known in figures().items() if not known.changes_results and n not in SLOW]
        combinations = strongest(base, names) if before else []
        if len(combinations) > MOST_COMBINATIONS:
            self.notices.append(too_many(len(combinations)))
            return []
        if before is None or not combinations:
            return []
        asked = replace(self.question, max_results=1, combinations=tuple(combinations), kept=None)
        plans = recommend(asked, self.index_of(base)).plans
        after = plans[0] if plans and plans[0].verdict == "fits" else None
        exact = (
            _reached(self.aim, one)
            for one in better
            if not _lossy(one) and one.steps[0].name not in SLOW
        )
        best = min(exact, default=value_of(self.aim, before))
        if after is None or value_of(self.aim, after) >= best or len(after.variant.steps) < 2:
            return []
        steps = after.variant.steps
        words = together(steps, before, after, self.aim)
        return [self._compared(before, after, steps, after.variant.prepared, words)]

    def _tried(self, changed: Iterable[Combination]) -> list[Advice]:
        """Of each set of techniques the form that does most; of equals the mildest."""
        best: dict[tuple[str, ...], Advice] = {}
        for workload, steps in changed:
            one = self._advice(workload, steps)
            name = tuple(step.name for step in steps)
            if one and (
                name not in best or _reached(self.aim, one) < _reached(self.aim, best[name])
            ):
                best[name] = one
        return list(best.values())

    def _together(self, count: int) -> Iterator[Combination]:
        """Sets of so many techniques, each as far as it goes."""
        base = self.question.prepared.workload
        names = [n for n in figures() if n not in self.allowed and n != CPU_ONLY and forms(n, base)]
        for chosen in sets_of(names, count):
            workload, steps = combine(base, [(name, FAR) for name in chosen])
            if len(steps) == count:
                yield workload, steps

    def _triples(self, miss: Miss) -> list[Combination]:
        """The sets of three that free most of what is lacking; a notice where there are others."""
        asked = self.question
        every = promising(self._together(3), asked.prepared, asked.prepare, miss)
        if len(every) > MOST_SEARCHED:
            self.notices.append(bounded("sets of three techniques", MOST_SEARCHED, len(every)))
        return every[:MOST_SEARCHED]

    def _advice(self, workload: AnyWorkload, steps: tuple[Applied, ...]) -> Advice | None:
        """The best plan with the techniques beside any the plan may use; None when not better."""
        prepared = self._prepared(workload)
        after = None if prepared is None else self._planned(prepared, steps)
        before = self.before
        if before is None:
            if prepared is None or after is None:
                return None
            gpu, host = saved_bytes(
                self.question.prepared, after.variant.prepared, after.layout, ranks_of(after)
            )
            details = details_of(steps, prepared, after.layout, ranks_of(after))
            words = outcome(self.aim, steps, None, after)
            return Advice(steps, gpu, host, 0, after, None, words, details=details)
        if after is None or value_of(self.aim, after) >= value_of(self.aim, before):
            return self._frees(before, steps)
        changed = self._added(before, steps) or after.variant.prepared
        words = outcome(self.aim, steps, before, after)
        one = self._compared(before, after, steps, changed, words)
        return None if steps[0].name == CPU_ONLY and gpu_buys(one) else one

    def _compared(
        self,
        before: Plan,
        after: Plan,
        steps: tuple[Applied, ...],
        changed: Prepared,
        message: str,
    ) -> Advice:
        """A better plan against the best without; `changed` is compared under that one's layout."""
        gpu, host = saved_between(before, after, changed)
        own = tuple(step for step in steps if step not in after.variant.steps)
        factor = time_factor(before, after, own)
        cost = work_cost_factor(before, after, factor)
        timed = self.question.hours is not None
        details = (
            *time_words(before, after, steps, factor, cost),
            *dropped(before, after, steps),
            *details_of(steps, after.variant.prepared, after.layout, ranks_of(after)),
        )
        return Advice(
            steps,
            gpu,
            host,
            before.cost_per_hour_nanos_usd - after.cost_per_hour_nanos_usd,
            after,
            None,
            message,
            before.cost_per_job_nanos_usd - after.cost_per_job_nanos_usd if timed else 0,
            factor,
            cost,
            details,
        )

    def _frees(self, before: Plan, steps: tuple[Applied, ...]) -> Advice | None:
        """Techniques that free memory of the plan, beside those it uses; None where little."""
        slow = any(step.figures.time[1] > SAME_TIME for step in steps)
        added = None if slow else self._added(before, steps)
        if added is None:
            return None
        gpu, host = saved_bytes(before.variant.prepared, added, before.layout, ranks_of(before))
        fuller = max(before.pools, key=lambda p: p.peak.high_bytes / max(p.usable_bytes, 1))
        saved = gpu if fuller.pool == "gpu" else host
        if saved < LEAST_ROOM * fuller.peak.best_bytes:
            return None
        layout = own_layout(added, before.layout)
        details = details_of(steps, added, layout, ranks_of(before))
        return Advice(steps, gpu, host, 0, None, None, room(steps), details=details)

    def _roomy(self, found: list[Advice], better: list[Advice]) -> list[Advice]:
        """The pieces that only free memory: those that leave results alone first, then the most."""
        names = {step.name for one in better for step in one.steps}
        freed = [
            one for one in found if one.plan is None and not {s.name for s in one.steps} & names
        ]
        freed.sort(key=lambda one: (_lossy(one), -one.gpu_bytes_saved, -one.host_bytes_saved))
        return freed[:MOST_ROOM]

    def _added(self, before: Plan, steps: tuple[Applied, ...]) -> Prepared | None:
        """The plan's own workload with the same techniques on top."""
        workload = before.variant.prepared.workload
        for step in steps:
            same = [made for made, applied in forms(step.name, workload) if _alike(applied, step)]
            if not same:
                return None
            workload = same[0]
        return self._prepared(workload)

    def _planned(self, prepared: Prepared, steps: tuple[Applied, ...]) -> Plan | None:
        """The best plan of a changed workload, over every combination of what is allowed."""
        question = self.question
        hours = question.hours and partial(_with_steps, question.hours, steps)
        # The asker's own cores cost nothing whatever they take: the work is priced on rented ones.
        rented = any(step.name == CPU_ONLY for step in steps)
        asked = replace(
            question,
            machines=() if rented else question.machines,
            prepared=prepared,
            max_results=1,
            combinations=tuple(strongest(prepared.workload, self.allowed)),
            hours=hours,
            kept=None,
        )
        try:
            plans = recommend(asked, self.index_of(prepared.workload)).plans
        except UnsupportedWorkload:
            return None  # Its hours are not modelled, and the question ranks by them.
        return plans[0] if plans and plans[0].verdict == "fits" else None

    def _prepared(self, workload: AnyWorkload) -> Prepared | None:
        """The changed workload, prepared; None where the change contradicts the model."""
        try:
            return self.question.prepare(workload)
        except UnsupportedWorkload:
            return None


#: Beyond the number of forms of any technique: its strongest.
FAR = 99


def _with_steps(
    hours: Callable[[Variant], Hours], steps: tuple[Applied, ...], variant: Variant
) -> Hours:
    """The hours of a variant that has techniques beside its own: their time counts too."""
    return hours(replace(variant, steps=(*steps, *variant.steps)))


def _alike(one: Applied, other: Applied) -> bool:
    return [c.after for c in one.changes] == [c.after for c in other.changes]


def _reached(aim: Objective, advice: Advice) -> float:
    """What the plan with a piece of advice is ranked by; beyond all where there is no plan."""
    return value_of(aim, advice.plan) if advice.plan else float("inf")


def _lossy(advice: Advice) -> int:
    return sum(step.figures.changes_results for step in advice.steps)


def _preference(aim: Objective, advice: Advice) -> tuple[int, bool, float, int, list[int]]:
    """Fewest techniques; what does not make the work dearer in the end; the best plan; what leaves
    results alone; then the order of the table."""
    order = list(figures())
    places = [order.index(step.name) for step in advice.steps]
    dearer = (advice.work_cost_factor or 0.0) > 1
    return len(advice.steps), dearer, _reached(aim, advice), _lossy(advice), places
