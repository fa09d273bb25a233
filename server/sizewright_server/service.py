"""The use cases: questions in, answers out, no gRPC."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.devices import devices
from sizewright_catalog.home import Home
from sizewright_catalog.published import (
    Published,
    PublishedError,
    Served,
    read_published,
)
from sizewright_catalog.values import Device, InstanceType, Machine
from sizewright_server import clock
from sizewright_server.asked_layout import asked_layout
from sizewright_server.estimation.memory import MemoryEstimate, Notice
from sizewright_server.estimation.preparation import AnyPrepared, AnyWorkload, prepare_any
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.advice import Advisor
from sizewright_server.planning.devices import (
    loading_of,
    overhead_of,
    refuse_what_cannot_run,
    served_on,
    unsupported_reason,
    uses_gpu,
)
from sizewright_server.planning.index import HostIndex, OfferIndex
from sizewright_server.planning.limits import limits
from sizewright_server.planning.machines import Check, check_nodes, replayed
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.pitfalls import pitfalls
from sizewright_server.planning.plan import (
    Advice,
    Constraints,
    FitLimit,
    Plan,
    PlanningResult,
    worst,
)
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.planning.relaxations import cheaper_elsewhere, relaxations
from sizewright_server.planning.replaying import replayed_notices
from sizewright_server.planning.situation import Situation
from sizewright_server.planning.smallest_changes import changes_that_fit
from sizewright_server.planning.throughput import hours_of
from sizewright_server.planning.variants import strongest
from sizewright_server.planning.words import reasons_of
from sizewright_server.questions import CheckQuestion, EstimateQuestion, RecommendQuestion
from sizewright_server.remembered import Remembered

if TYPE_CHECKING:
    from sizewright_catalog.overrides import Overrides


@dataclass(frozen=True, slots=True)
class Recommended:
    """A planning result with the estimates of its first plans."""

    result: PlanningResult
    estimates: tuple[MemoryEstimate, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """A check with the estimate under its layout; None where no layout could be tried.

    `limits` and `advice` are found when they are asked for.
    """

    check: Check
    estimate: MemoryEstimate | None
    limits: tuple[FitLimit, ...] = ()
    advice: tuple[Advice, ...] = ()
    notices: tuple[Notice, ...] = ()


class Sizing:
    """The engine over one catalog version, and what is published of it."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        today: Callable[[], date] = clock.utc_today,
        published: Published | None = None,
        problems: tuple[str, ...] = (),
        home: Home | None = None,
        store_url: str | None = None,
        overrides: Overrides | None = None,
    ) -> None:
        self.home, self.store_url, self.overrides = home, store_url, overrides
        self.today, self.priced_on = today, today()
        self.catalog = catalog if overrides is None else _priced(catalog, overrides, self.priced_on)
        #: The version before, for listings that began with it.
        self.previous: Catalog | None = None
        self.published = published or Published(0)
        self.machines, unread = _registered(self.published)
        self.problems = problems + unread
        self.index = OfferIndex(self.catalog)
        self.remembered = Remembered()

    @property
    def is_outdated(self) -> bool:
        """Whether private prices may have changed since: rules begin and end by the day."""
        return self.overrides is not None and self.priced_on != self.today()

    def published_now(self) -> Published:
        """What is published this moment, where it can be read; else what was when this was made."""
        if self.home is None:
            return self.published
        try:
            return read_published(self.home) or self.published
        except PublishedError:
            return self.published

    def succeeded_by(self, served: Served) -> Sizing:
        """The engine over what is served now; what was prepared for workloads stays prepared.

        Over another version everything a question needs is built before this returns.
        """
        if served.catalog.version == self.catalog.version and not self.is_outdated:
            made = copy(self)
            made.published = served.published
            made.machines, unread = _registered(served.published)
            made.problems = served.problems + unread
            return made
        made = Sizing(
            served.catalog,
            today=self.today,
            published=served.published,
            problems=served.problems,
            home=self.home,
            store_url=self.store_url,
            overrides=self.overrides,
        )
        made.previous = self.catalog
        made.remembered = self.remembered.under_another_catalog()
        made.index.prepare_like(self.index)
        if "host_index" in vars(self):
            made.host_index.prepare_like(self.host_index)
        return made

    @cached_property
    def host_index(self) -> HostIndex:
        """The offers as fits see them; built by the first fit."""
        return HostIndex(self.catalog)

    def estimate(self, question: EstimateQuestion) -> MemoryEstimate:
        """The memory of a workload under its own layout, or the first possible one.

        Raises UnsupportedWorkload.
        """
        prepared = self.remembered.prepared(question.workload, question.key)
        layout, per_node = asked_layout(prepared, question)
        device = self._device(question.device)
        if device is not None:
            refuse_what_cannot_run(device, prepared.workload)
        loading = loading_of(prepared.workload)
        overhead = (
            device_overhead(None, None, loading) if device is None else overhead_of(device, loading)
        )
        ranks = min(layout.gpus, per_node)
        if isinstance(prepared, PreparedServing):
            seen = None if device is None else served_on(device)
            return prepared.estimate(layout, ranks, overhead, device=seen)
        return prepared.estimate(layout, ranks, overhead, replay=True)

    def recommend(self, question: RecommendQuestion) -> Recommended:
        """Plans cheapest first. Raises UnsupportedWorkload."""
        prepared = self.remembered.prepared(question.workload, question.key)
        asked = Question(
            prepared,
            question.constraints,
            question.max_results,
            self.today(),
            self._with_registered(question.machines),
            question.objective,
            tuple(strongest(question.workload, question.techniques)),
            hours_of(question.job),
            kept=self.remembered.searches(question.key),
        )
        index = self._index_of(question.workload)
        result = recommend(asked, index)
        if question.advise or not result.plans:
            notices = (*result.notices, *relaxations(asked, index, result))
            result = replace(result, notices=notices)
        if question.advise:
            advisor = Advisor(asked, self._index_of, result)
            advice = advisor.advice()
            seen = (*replayed_notices(asked, result), *advisor.notices)
            result = replace(result, advice=advice, notices=seen)
        shown = result.plans if question.explain else result.plans[:1]
        return Recommended(result, tuple(estimate_of(plan) for plan in shown))

    def _index_of(self, workload: AnyWorkload) -> OfferIndex:
        """The offers a workload runs on."""
        return self.index if uses_gpu(workload) else self.host_index

    def _with_registered(self, asked: tuple[Machine, ...]) -> tuple[Machine, ...]:
        """A question's own machines and the registered; of one name, the question's own."""
        names = {machine.name for machine in asked}
        return asked + tuple(one for one in self.machines if one.name not in names)

    def check(self, question: CheckQuestion) -> Checked:
        """Whether a workload fits a machine. Raises UnsupportedWorkload."""
        prepared = self.remembered.prepared(question.workload, question.key)
        constraints = Constraints(headroom=question.headroom, max_nodes=question.node_count)
        check = check_nodes(prepared, question.target, [question.node_count], constraints)
        if check.choice is None:
            return Checked(check, None)
        target = question.target
        choice = replayed(check.choice, target, question.headroom)
        check = replace(check, choice=choice)
        notices = pitfalls(Situation.of(target, choice))
        if worst(tuple(pool.verdict for pool in choice.pools)) == "fits":
            planning = Question(prepared, constraints, 1, self.today())
            index = self._index_of(question.workload)
            notices = (*notices, *cheaper_elsewhere(planning, index, target))
        estimate = _estimate_on(prepared, choice.layout, target, replay=True)
        made = Checked(check, estimate, notices=notices)
        return self._advised(question, prepared, made, constraints) if question.advise else made

    def _advised(
        self, question: CheckQuestion, prepared: AnyPrepared, made: Checked, asked: Constraints
    ) -> Checked:
        """The check with the largest values that fit and, where it does not fit, what would."""
        choice, target, nodes = made.check.choice, question.target, question.node_count
        fits = choice is not None and worst(tuple(p.verdict for p in choice.pools)) == "fits"
        found = limits(question.workload, prepare_any, target, nodes, asked, fits_as_stated=fits)
        if choice is None or fits:
            return replace(made, limits=found)
        changes = changes_that_fit(prepared, prepare_any, target, nodes, asked, choice.layout)
        return replace(made, limits=found, advice=changes)

    @staticmethod
    def reasons(question: CheckQuestion, made: Checked) -> tuple[str, ...]:
        """Sentences on what binds, or why nothing could be tried."""
        if made.check.choice is None:
            return (f"{made.check.refusal}.",)
        return reasons_of(question.target, made.check.choice)

    @staticmethod
    def _device(name: str | None) -> Device | None:
        """The device of a name. Raises UnsupportedWorkload for one that nothing runs on."""
        if name is None:
            return None
        device = devices().get(name)
        reason = "is not in the device table" if device is None else unsupported_reason(device)
        if device is None or reason:
            raise UnsupportedWorkload(Violation("device", reason))
        return device


def estimate_of(plan: Plan) -> MemoryEstimate:
    """A plan's estimate, explained, on its own machine."""
    return _estimate_on(plan.variant.prepared, plan.layout, plan.placement.target)


def _estimate_on(
    prepared: Prepared, layout: Layout, target: InstanceType | Machine, *, replay: bool = False
) -> MemoryEstimate:
    """The estimate on a machine; a fit uses none of its devices."""
    if not uses_gpu(prepared.workload):
        return prepared.estimate(layout, 1, device_overhead(None, None))
    if target.device is None:
        raise LookupError("a plan names no device")
    overhead = overhead_of(target.device, loading_of(prepared.workload))
    if isinstance(prepared, PreparedServing):
        seen = served_on(target.device)
        return prepared.estimate(layout, target.device_count, overhead, device=seen)
    return prepared.estimate(layout, target.device_count, overhead, replay=replay)


def _priced(catalog: Catalog, overrides: Overrides, today: date) -> Catalog:
    """The catalog at its owner's private prices."""
    from sizewright_catalog.overrides import apply_overrides

    return apply_overrides(catalog, overrides, today)


def _registered(published: Published) -> tuple[tuple[Machine, ...], tuple[str, ...]]:
    """The machines that are registered, and what is wrong with those that cannot be read."""
    if not published.documents:
        return (), ()
    from sizewright_catalog.owned.documents import read_machines

    return read_machines(published.documents)
