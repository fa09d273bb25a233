"""Advice: techniques that would change the answer, found by estimating the changed workload."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations as pairs_of

from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.index import OfferIndex
from sizewright_server.planning.machines import check_nodes
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.plan import Advice, Constraints, Plan, PlanningResult, worst
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.planning.techniques import Applied, figures, forms
from sizewright_server.planning.variants import Combination, Prepare, single_steps
from sizewright_server.planning.words import dollars

#: Pieces of advice in one answer.
MOST_ADVICE = 8


def advise(question: Question, index: OfferIndex, result: PlanningResult) -> tuple[Advice, ...]:
    """What would make the cheapest plan cheaper, or make one fit; most dollars saved first.

    A technique is shown in the mildest of its forms that saves most.
    """
    before = result.plans[0] if result.plans and result.plans[0].verdict == "fits" else None
    used = {step.name for step in before.variant.steps} if before else set()
    singles = [
        (workload, steps)
        for workload, steps in single_steps(question.prepared.workload)
        if steps[0].name not in used
    ]
    found = _best_by_technique(_tried(question, index, before, singles))
    if before is None and not found:
        found = _best_by_technique(_tried(question, index, before, _pairs(question)))
    found.sort(key=_preference)
    return tuple(found[:MOST_ADVICE])


def _tried(
    question: Question, index: OfferIndex, before: Plan | None, changed: Iterable[Combination]
) -> list[Advice]:
    made = []
    for workload, steps in changed:
        prepared = _prepared(question.prepare, workload)
        if prepared is None:
            continue
        alone = replace(question, prepared=prepared, max_results=1, combinations=())
        plans = recommend(alone, index).plans
        after = plans[0] if plans and plans[0].verdict == "fits" else None
        if after is None:
            continue
        cost = after.cost_per_hour_nanos_usd
        if before is not None and cost >= before.cost_per_hour_nanos_usd:
            continue
        made.append(_advice(question.prepared, prepared, steps, before, after))
    return made


def _advice(
    old: Prepared, new: Prepared, steps: tuple[Applied, ...], before: Plan | None, after: Plan
) -> Advice:
    at = before or after
    gpu, host = saved_bytes(old, new, at.layout, _ranks(at))
    saved = before.cost_per_hour_nanos_usd - after.cost_per_hour_nanos_usd if before else 0
    hourly = dollars(after.cost_per_hour_nanos_usd)
    ending = (
        f"saves {dollars(saved)} an hour: {hourly} on {_machine(after)}"
        if before
        else f"makes it fit, at {hourly} an hour on {_machine(after)}"
    )
    return Advice(steps, gpu, host, saved, after, None, f"{_said(steps)} {ending}.")


def changes_that_fit(
    prepared: Prepared,
    prepare: Prepare,
    target: InstanceType | Machine,
    nodes: int,
    constraints: Constraints,
    at: Layout,
) -> tuple[Advice, ...]:
    """Changes with which a workload fits a machine it does not fit, the smallest first.

    Pairs of techniques are tried where none alone is enough. `at` is the layout bytes are
    compared under.
    """
    for changed in (single_steps(prepared.workload), _pairs_on(prepared)):
        found = []
        for workload, steps in changed:
            new = _prepared(prepare, workload)
            choice = None if new is None else check_nodes(new, target, [nodes], constraints).choice
            if new is None or choice is None:
                continue
            verdict = worst(tuple(pool.verdict for pool in choice.pools))
            if verdict == "fits":
                ranks = max(target.device_count, 1)
                gpu, host = saved_bytes(prepared, new, at, ranks)
                message = f"{_said(steps)} makes it fit."
                found.append(Advice(steps, gpu, host, 0, None, verdict, message))
        if found:
            return tuple(sorted(_best_by_technique(found), key=_preference)[:MOST_ADVICE])
    return ()


def saved_bytes(old: Prepared, new: Prepared, layout: Layout, ranks: int) -> tuple[int, int]:
    """What a change takes off the best estimates of a GPU and of a node under one layout."""
    sizes = []
    for prepared in (old, new):
        columns = prepared.columns((layout,))
        host = columns.host_node_best_bytes[0] + ranks * columns.host_rank_best_bytes[0]
        sizes.append((int(columns.gpu_reserved_best_bytes[0]), int(host)))
    return sizes[0][0] - sizes[1][0], sizes[0][1] - sizes[1][1]


def _pairs(question: Question) -> list[Combination]:
    return _pairs_on(question.prepared)


def _pairs_on(prepared: Prepared) -> list[Combination]:
    """Two techniques together, each as far as it goes."""
    made: list[Combination] = []
    for first, second in pairs_of(figures(), 2):
        for workload, one in forms(first, prepared.workload)[-1:]:
            for both, two in forms(second, workload)[-1:]:
                made.append((both, (one, two)))
    return made


def _best_by_technique(found: Iterable[Advice]) -> list[Advice]:
    """Of each technique the form that saves most; of equals the first, which is the mildest."""
    best: dict[tuple[str, ...], Advice] = {}
    for advice in found:
        name = tuple(step.name for step in advice.steps)
        held = best.get(name)
        if held is None or (
            advice.cost_per_hour_saved_nanos_usd > held.cost_per_hour_saved_nanos_usd
        ):
            best[name] = advice
    return list(best.values())


def _preference(advice: Advice) -> tuple[int, int, list[int]]:
    """Most dollars first; then what leaves results alone; then the order of the table."""
    order = list(figures())
    lossy = sum(step.figures.changes_results for step in advice.steps)
    cost = advice.plan.cost_per_hour_nanos_usd if advice.plan else 0
    return cost, lossy, [order.index(step.name) for step in advice.steps]


def _prepared(prepare: Prepare, workload: AnyWorkload) -> Prepared | None:
    """The changed workload, prepared; None where the change contradicts the model."""
    try:
        return prepare(workload)
    except UnsupportedWorkload:
        return None


def _ranks(plan: Plan) -> int:
    target = plan.machine if plan.offer is None else plan.offer.instance_type
    return max(target.device_count, 1) if target else 1


def _machine(plan: Plan) -> str:
    if plan.offer is None:
        return plan.machine.name.removeprefix("machines/") if plan.machine else ""
    nodes = f"{plan.node_count} x " if plan.node_count > 1 else ""
    return f"{nodes}{plan.offer.instance_type.provider} {plan.offer.instance_type.type}"


def _said(steps: Sequence[Applied]) -> str:
    """Techniques and what they change, as the subject of a sentence."""
    words = []
    for step in steps:
        changes = ", ".join(
            f"{change.field.rsplit('.', 1)[-1]} {change.before} to {change.after}"
            for change in step.changes
        )
        words.append(f"{step.name.replace('-', ' ')} ({changes})")
    text = " with ".join(words)
    return text[0].upper() + text[1:]
