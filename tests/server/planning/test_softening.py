"""A plan keeps only techniques it needs, each in the mildest form that fits its machine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import product

import pytest

from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.workload import ModelSource, Optimizer, Training, Workload
from sizewright_server.planning.machines import check_nodes
from sizewright_server.planning.plan import Constraints, Plan, worst
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.planning.techniques import figures, forms
from sizewright_server.planning.variants import combine, strongest

#: In the order of the table: the cheapest first.
EXACT = tuple(
    name for name, entry in figures().items() if entry.searched and not entry.changes_results
)
LLAMA = "meta-llama/Meta-Llama-3-8B"
SMALL = "meta-llama/Llama-3.2-1B"
#: One type of each of several sizes of GPU, so that each needs other techniques.
TYPES = (
    "g5.12xlarge",
    "g6e.12xlarge",
    "p4d.24xlarge",
    "p4de.24xlarge",
    "p5.48xlarge",
    "g2-standard-96",
    "a2-ultragpu-4g",
    "Standard_NC80adis_H100_v5",
)


def training(preset: str, batch: int, tokens: int) -> Workload:
    run = Training(
        precision="bf16-mixed", optimizer=Optimizer("adamw"), micro_batch=batch, seq_len=tokens
    )
    return Workload(ModelSource(find_preset(preset).config, preset=preset), run)


def plans_of(workload: Workload, names: tuple[str, ...], types: tuple[str, ...]) -> list[Plan]:
    """The fitting plans over the types, in one list."""
    question = Question(
        prepare_any(workload),
        Constraints(instance_types=types, purchase=("on-demand",)),
        max_results=100,
        today=date(2026, 11, 24),
        combinations=tuple(strongest(workload, list(names))),
    )
    return [p for p in recommend(question, bundled_sizing().index).plans if p.verdict == "fits"]


def picked_of(plan: Plan, workload: Workload) -> list[tuple[str, int]]:
    """Which form of each technique a plan has."""
    names = [step.name for step in plan.variant.steps]
    numbers = product(*(range(1, (len(forms(name, workload)) or 1) + 1) for name in names))
    for chosen in numbers:
        picked = list(zip(names, chosen, strict=True))
        if combine(workload, picked)[1] == plan.variant.steps:
            return picked
    raise LookupError(f"no forms of {names} make this plan")


def milder(picked: list[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Every way to leave one technique out or to take it in a milder form."""
    for place, (name, form) in enumerate(picked):
        for less in range(form):
            kept = [*picked[:place], (name, less), *picked[place + 1 :]]
            yield [pick for pick in kept if pick[1]]


def fits(workload: Workload, picked: list[tuple[str, int]], plan: Plan) -> bool:
    assert plan.offer is not None
    try:
        prepared = prepare_any(combine(workload, picked)[0])
    except UnsupportedWorkload:
        return False
    kind = plan.offer.instance_type
    choice = check_nodes(prepared, kind, [plan.node_count], Constraints()).choice
    return choice is not None and worst(tuple(p.verdict for p in choice.pools)) == "fits"


@pytest.mark.parametrize(
    ("preset", "batch", "tokens"), [(LLAMA, 1, 4096), (LLAMA, 4, 2048), (SMALL, 8, 4096)]
)
def test_no_plan_keeps_a_technique_or_a_form_that_it_does_not_need(
    preset: str, batch: int, tokens: int
) -> None:
    workload = training(preset, batch, tokens)

    plans = plans_of(workload, EXACT, TYPES)

    kinds = {plan.offer.instance_type.type: plan for plan in plans if plan.offer}
    assert len(kinds) >= 3
    for name, plan in kinds.items():
        picked = picked_of(plan, workload)
        assert fits(workload, picked, plan), name
        for less in milder(picked):
            assert not fits(workload, less, plan), (name, picked, less)


def test_what_fits_as_it_stands_is_left_as_it_stands() -> None:
    plans = plans_of(training(SMALL, 1, 512), EXACT, ("p5.48xlarge",))

    assert plans
    assert all(plan.variant.steps == () for plan in plans)
