"""What a constraint costs: the answer with each of them lifted, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sizewright_catalog.money import dollars
from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.estimation.memory import Notice
from sizewright_server.planning.index import OfferIndex
from sizewright_server.planning.objectives import in_words, value_of
from sizewright_server.planning.plan import Constraints, Plan, PlanningResult
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.planning.words import stated_layout

#: Constraints that are lifted, and what they are without.
LIFTED: dict[str, Any] = {
    "providers": (),
    "regions": (),
    "zones": (),
    "purchase": ("on-demand", "spot"),
    "devices": (),
    "exclude_devices": (),
    "instance_types": (),
    "cpu_architectures": (),
    "min_vcpus": 0,
    "headroom": 0.0,
    "max_price_age_days": None,
    "list_prices_only": False,
    "min_gpus": 0,
    "max_gpus": None,
    "max_cost_per_hour_nanos_usd": None,
    "max_cost_per_job_nanos_usd": None,
    "min_nodes": 1,
    "min_local_disk_bytes": 0,
    "max_interruption": None,
    "min_network_gbps": 0.0,
    "fabrics": (),
}
#: Names as the request file has them, where they differ.
WRITTEN = {
    "max_price_age_days": "max_price_age",
    "max_cost_per_hour_nanos_usd": "max_cost_per_hour",
    "max_cost_per_job_nanos_usd": "max_cost_per_job",
    "min_local_disk_bytes": "min_local_disk",
}
MOST_NOTICES = 3
#: GPUs of a large node.
LARGE_NODE = 8


def relaxations(
    question: Question, index: OfferIndex, result: PlanningResult
) -> tuple[Notice, ...]:
    """The constraints that cost most, or that keep everything from fitting."""
    before = _fitting(result)
    found = []
    for change, looser in _loosened(question):
        after = _fitting(recommend(replace(question, constraints=looser, max_results=1), index))
        if after is None:
            continue
        aim = question.objective
        value = value_of(aim, after)
        reached = in_words(aim, value)
        if before is None:
            words = f"{change} it fits, from {reached}."
            found.append((value, Notice("constraint-prevents-fit", words)))
        elif value < value_of(aim, before):
            verb = "takes" if aim == "time" else "costs"
            words = (
                f"{change} the best plan {verb} {reached} in place of "
                f"{in_words(aim, value_of(aim, before))}."
            )
            found.append((value, Notice("constraint-costs", words)))
    found.sort(key=lambda pair: pair[0])
    return tuple(notice for _, notice in found[:MOST_NOTICES])


def cheaper_elsewhere(
    question: Question, index: OfferIndex, target: InstanceType | Machine
) -> tuple[Notice, ...]:
    """Whether an offer fits that costs less than the cheapest of the machine that was checked."""
    if isinstance(target, Machine):
        return ()
    of_target = replace(question.constraints, instance_types=(target.type,))
    own = _fitting(recommend(replace(question, constraints=of_target, max_results=1), index))
    best = _fitting(recommend(replace(question, max_results=1), index))
    if own is None or best is None or best.offer is None:
        return ()
    if best.cost_per_hour_nanos_usd >= own.cost_per_hour_nanos_usd:
        return ()
    kind = best.offer.instance_type
    words = (
        f"It is over-provisioned: {kind.provider} {kind.type} fits too, from "
        f"{dollars(best.cost_per_hour_nanos_usd)} an hour in place of "
        f"{dollars(own.cost_per_hour_nanos_usd)}."
    )
    return (Notice("over-provisioned", words),)


def _loosened(question: Question) -> Iterator[tuple[str, Constraints]]:
    """Each looser set of constraints, and in words what it takes away or allows."""
    asked = question.constraints
    for name, without in LIFTED.items():
        if getattr(asked, name) != without:
            looser = replace(asked, **{name: without})
            yield f"Without {WRITTEN.get(name, name)!r}", looser
    if asked.max_nodes > 1 and not asked.allow_unknown_network:
        yield "With 'allow_unknown_network'", replace(asked, allow_unknown_network=True)
    more = max(2 * asked.max_nodes, _nodes_of_layout(question))
    yield f"With 'max_nodes: {more}'", replace(asked, max_nodes=more)


def _nodes_of_layout(question: Question) -> int:
    """Nodes of the largest common size that the stated layout fills; 0 where none is stated."""
    layout = stated_layout(question.prepared.workload)
    return 0 if layout is None else -(-layout.gpus // LARGE_NODE)


def _fitting(result: PlanningResult) -> Plan | None:
    plans = [plan for plan in result.plans if plan.verdict == "fits"]
    return plans[0] if plans else None
