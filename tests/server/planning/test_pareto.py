"""The Pareto front shown is one: no plan on it is beaten by another in cost, room and nodes."""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import pytest

from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import ModelSource, Optimizer, Training, Workload
from sizewright_server.planning import pareto
from sizewright_server.planning.plan import Constraints, Plan, PlanningResult
from sizewright_server.planning.planner import Question, recommend

LLAMA = "meta-llama/Meta-Llama-3-8B"


def planned(nodes: int, checkpointing: str) -> PlanningResult:
    """The answer for a full fine-tune of 8 B parameters."""
    run = Training(
        precision="bf16-mixed",
        optimizer=Optimizer("adamw"),
        micro_batch=1,
        seq_len=4096,
        checkpointing=checkpointing,  # type: ignore[arg-type]
    )
    work = Workload(ModelSource(find_preset(LLAMA).config, preset=LLAMA), run)
    asked = Constraints(providers=("aws", "gcp", "azure"), max_nodes=nodes)
    question = Question(prepare_any(work), asked, 1, date(2026, 11, 24))
    return recommend(question, bundled_sizing().index)


def goods(plan: Plan) -> tuple[int, float, int]:
    """What a plan is compared by, the less the better."""
    return plan.cost_per_hour_nanos_usd, -plan.free_share, plan.node_count


@pytest.mark.parametrize(("nodes", "checkpointing"), [(1, "full"), (2, "full"), (2, "none")])
def test_no_plan_on_the_front_is_beaten_by_what_the_others_show(
    nodes: int, checkpointing: str
) -> None:
    plans = planned(nodes, checkpointing).pareto

    assert len(plans) > 2
    points = [goods(plan) for plan in plans]
    for i, mine in enumerate(points):
        for j, other in enumerate(points):
            no_worse = all(a <= b for a, b in zip(other, mine, strict=True))
            assert i == j or not no_worse or other == mine, (plans[i], plans[j])


def test_a_long_front_is_shown_from_the_cheapest_to_the_roomiest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = planned(8, "full")
    monkeypatch.setattr(pareto, "MOST_PLANS", 1000)
    whole = [goods(plan) for plan in planned(8, "full").pareto]
    shown = [goods(plan) for plan in result.pareto]

    assert len(shown) == 10
    assert result.pareto_count == len(whole) > 20
    ranks = [whole.index(plan) for plan in shown]
    assert ranks[0] == 0
    assert ranks[-1] == len(whole) - 1
    steps = [after - before for before, after in pairwise(ranks)]
    assert min(steps) >= 1
    assert max(steps) <= 2 * (len(whole) - 1) / 7 + 1
    assert min(whole, key=lambda one: one[1]) in shown
    assert next(one for one in whole if one[2] == 1) in shown


def test_a_front_that_is_not_longer_than_its_limit_is_shown_whole() -> None:
    result = planned(1, "full")

    assert result.pareto_count == len(result.pareto) < 10
