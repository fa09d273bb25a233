"""Advice: techniques that would change the answer, found by estimating the changed workload."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations as pairs_of

from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.workload import Layout, Training
from sizewright_server.planning.hours import Hours
from sizewright_server.planning.index import OfferIndex
from sizewright_server.planning.machines import check_nodes
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.objectives import in_words, value_of
from sizewright_server.planning.plan import (
    Advice,
    Constraints,
    Objective,
    Plan,
    PlanningResult,
    worst,
)
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.planning.techniques import Applied, figures, forms
from sizewright_server.planning.variants import Combination, Prepare, Variant, single_steps

#: Pieces of advice in one answer.
MOST_ADVICE = 8


def advise(question: Question, index: OfferIndex, result: PlanningResult) -> tuple[Advice, ...]:
    """What would make the cheapest plan cheaper, or make one fit; most dollars saved first.

    Each is added to those the plan uses already, and shown in the mildest of its forms that saves
    most of what the question ranks by.
    """
    before = result.plans[0] if result.plans and result.plans[0].verdict == "fits" else None
    used = {step.name for step in before.variant.steps} if before else set()
    start = before.variant.prepared if before else question.prepared
    singles = [
        (workload, steps)
        for workload, steps in single_steps(start.workload)
        if steps[0].name not in used
    ]
    aim = question.objective
    found = _best_by_technique(_tried(question, index, before, singles), aim)
    if before is None and not found:
        found = _best_by_technique(_tried(question, index, before, _pairs(question)), aim)
    found.sort(key=partial(_preference, aim))
    return tuple(found[:MOST_ADVICE])


def _tried(
    question: Question, index: OfferIndex, before: Plan | None, changed: Iterable[Combination]
) -> list[Advice]:
    made = []
    used = before.variant.steps if before else ()
    for workload, steps in changed:
        prepared = _prepared(question.prepare, workload)
        if prepared is None:
            continue
        # The time that techniques take counts too, where hours are asked for.
        every, hours = (*used, *steps), question.hours
        timed = hours and partial(_with_steps, hours, every)
        alone = replace(question, prepared=prepared, max_results=1, combinations=(), hours=timed)
        plans = recommend(alone, index).plans
        after = plans[0] if plans and plans[0].verdict == "fits" else None
        if after is None:
            continue
        aim = question.objective
        if before is not None and value_of(aim, after) >= value_of(aim, before):
            continue
        old = before.variant.prepared if before else question.prepared
        made.append(_advice(aim, old, prepared, steps, before, after))
    return made


def _with_steps(
    hours: Callable[[Variant], Hours], steps: tuple[Applied, ...], variant: Variant
) -> Hours:
    return hours(replace(variant, steps=steps))


def _advice(
    aim: Objective,
    old: Prepared,
    new: Prepared,
    steps: tuple[Applied, ...],
    before: Plan | None,
    after: Plan,
) -> Advice:
    at = before or after
    gpu, host = saved_bytes(old, new, at.layout, _ranks(at))
    saved = before.cost_per_hour_nanos_usd - after.cost_per_hour_nanos_usd if before else 0
    reached = in_words(aim, value_of(aim, after))
    ending = f"makes it fit, at {reached} on {_machine(after)}"
    if before:
        gained = in_words(aim, value_of(aim, before) - value_of(aim, after))
        ending = f"saves {gained}: {reached} on {_machine(after)}"
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
            best = _best_by_technique(found, "cost-per-hour")
            return tuple(sorted(best, key=partial(_preference, "cost-per-hour"))[:MOST_ADVICE])
    return ()


def saved_bytes(old: Prepared, new: Prepared, layout: Layout, ranks: int) -> tuple[int, int]:
    """What a change takes off the best estimates of a GPU and of a node under one layout."""
    sizes = []
    for prepared in (old, new):
        columns = prepared.columns((_offloaded(prepared, layout),))
        host = columns.host_node_best_bytes[0] + ranks * columns.host_rank_best_bytes[0]
        sizes.append((int(columns.gpu_reserved_best_bytes[0]), int(host)))
    return sizes[0][0] - sizes[1][0], sizes[0][1] - sizes[1][1]


def _offloaded(prepared: Prepared, layout: Layout) -> Layout:
    """The layout with what the workload offloads, which DeepSpeed does in its stages 2 and 3."""
    run = getattr(prepared.workload, "run", None)
    if not isinstance(run, Training) or run.offload in ("none", layout.offload):
        return layout
    needed = 3 if run.offload == "optimizer-and-parameters" else 2
    zero = max(layout.zero, needed)
    return replace(layout, zero=zero, sharding="deepspeed", offload=run.offload)


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


def _best_by_technique(found: Iterable[Advice], aim: Objective) -> list[Advice]:
    """Of each technique the form that saves most; of equals the first, which is the mildest."""
    best: dict[tuple[str, ...], Advice] = {}
    for advice in found:
        name = tuple(step.name for step in advice.steps)
        held = best.get(name)
        if held is None or _reached(aim, advice) < _reached(aim, held):
            best[name] = advice
    return list(best.values())


def _reached(aim: Objective, advice: Advice) -> float:
    """What the plan with a piece of advice is ranked by; 0 for all where there is no plan."""
    return value_of(aim, advice.plan) if advice.plan else 0.0


def _preference(aim: Objective, advice: Advice) -> tuple[float, int, list[int]]:
    """The best plan first; then what leaves results alone; then the order of the table."""
    order = list(figures())
    lossy = sum(step.figures.changes_results for step in advice.steps)
    return _reached(aim, advice), lossy, [order.index(step.name) for step in advice.steps]


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
