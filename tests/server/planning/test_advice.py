"""Advice is about the plan it stands under, and about what the question ranks by."""

from __future__ import annotations

from datetime import date

from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import Layout, ModelSource, Optimizer, Training, Workload
from sizewright_server.planning.advice import Advisor
from sizewright_server.planning.comparing import saved_bytes
from sizewright_server.planning.job import Job
from sizewright_server.planning.objectives import in_words, value_of
from sizewright_server.planning.plan import Constraints, Objective
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.planning.relaxations import relaxations
from sizewright_server.planning.techniques import forms
from sizewright_server.planning.throughput import hours_of
from sizewright_server.planning.variants import strongest

LLAMA = "meta-llama/Meta-Llama-3-8B"
GIB = 2**30
INDEX = bundled_sizing().index


def work() -> Workload:
    """A full fine-tune of 8 B parameters."""
    run = Training(
        precision="bf16-mixed",
        optimizer=Optimizer("adamw"),
        micro_batch=2,
        seq_len=2048,
        checkpointing="full",
    )
    return Workload(ModelSource(find_preset(LLAMA).config, preset=LLAMA), run)


def question(
    *,
    techniques: tuple[str, ...] = (),
    objective: Objective = "cost-per-hour",
    devices: tuple[str, ...] = (),
) -> Question:
    """Asked of the large clouds' on-demand offers; a job of 100 million tokens."""
    job = None if objective == "cost-per-hour" else Job(tokens=10**8)
    return Question(
        prepare_any(work()),
        Constraints(providers=("aws", "gcp", "azure"), purchase=("on-demand",), devices=devices),
        1,
        date(2026, 11, 24),
        objective=objective,
        combinations=tuple(strongest(work(), techniques)),
        hours=hours_of(job),
    )


def test_advice_is_added_to_the_techniques_the_plan_uses_already() -> None:
    asked = question(techniques=("gradient-accumulation", "optimizer-offload"))
    result = recommend(asked, INDEX)
    used = {step.name for step in result.plans[0].variant.steps}

    found = Advisor(asked, lambda _: INDEX, result).advice()

    assert used
    assert found
    assert not used & {step.name for advice in found for step in advice.steps}
    before = result.plans[0].cost_per_hour_nanos_usd
    for advice in found:
        if advice.plan is None:
            assert advice.cost_per_hour_saved_nanos_usd == 0
            continue
        assert before - advice.plan.cost_per_hour_nanos_usd == advice.cost_per_hour_saved_nanos_usd
        assert advice.cost_per_hour_saved_nanos_usd > 0


def test_advice_for_a_job_saves_dollars_of_the_job_even_where_the_hour_costs_more() -> None:
    asked = question(objective="cost-per-job")
    result = recommend(asked, INDEX)

    better = [a for a in Advisor(asked, lambda _: INDEX, result).advice() if a.plan]

    assert better
    for advice in better:
        assert advice.plan is not None
        assert advice.cost_per_job_saved_nanos_usd > 0
        assert advice.plan.cost_per_job_nanos_usd < result.plans[0].cost_per_job_nanos_usd
        assert "for the job" in advice.message


def test_a_constraint_costs_what_the_question_ranks_by() -> None:
    asked = question(objective="time", devices=("A100-80GB-SXM",))
    result = recommend(asked, INDEX)

    notices = [n for n in relaxations(asked, INDEX, result) if n.code == "constraint-costs"]

    assert notices
    for notice in notices:
        assert "$" not in notice.message
        assert "in place of" in notice.message
        assert in_words("time", value_of("time", result.plans[0])) in notice.message


def test_a_tight_plan_that_is_cheaper_by_the_hour_is_no_news_to_who_ranks_by_time() -> None:
    assert not [
        n for n in recommend(question(objective="time"), INDEX).notices if n.code == "cheaper-tight"
    ]


def test_offload_is_said_to_take_the_optimizer_off_the_gpu_and_onto_the_host() -> None:
    changed, _ = forms("optimizer-offload", work())[0]

    gpu, host = saved_bytes(prepare_any(work()), prepare_any(changed), Layout(), 1)

    # fp32 master weights and two moments of 8 B parameters are 90 GiB.
    assert gpu > 60 * GIB
    assert host < -60 * GIB
