"""The Pareto front shown is one: no plan on it is beaten by another in cost, room and nodes."""

from __future__ import annotations

from datetime import date

import pytest

from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import ModelSource, Optimizer, Training, Workload
from sizewright_server.planning.plan import Constraints, Plan
from sizewright_server.planning.planner import Question, recommend

LLAMA = "meta-llama/Meta-Llama-3-8B"


def front(nodes: int, checkpointing: str) -> tuple[Plan, ...]:
    """The front of a full fine-tune of 8 B parameters."""
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
    return recommend(question, bundled_sizing().index).pareto


@pytest.mark.parametrize(("nodes", "checkpointing"), [(1, "full"), (2, "full"), (2, "none")])
def test_no_plan_on_the_front_is_beaten_by_what_the_others_show(
    nodes: int, checkpointing: str
) -> None:
    plans = front(nodes, checkpointing)

    assert len(plans) > 2
    goods = [(p.cost_per_hour_nanos_usd, -p.free_share, p.node_count) for p in plans]
    for i, mine in enumerate(goods):
        for j, other in enumerate(goods):
            no_worse = all(a <= b for a, b in zip(other, mine, strict=True))
            assert i == j or not no_worse or other == mine, (plans[i], plans[j])
