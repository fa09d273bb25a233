"""Advice is about the plan it stands under, and about what the question ranks by."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date

from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import (
    Dataset,
    Inference,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)
from sizewright_server.planning.advice import Advisor
from sizewright_server.planning.comparing import saved_bytes
from sizewright_server.planning.devices import uses_gpu
from sizewright_server.planning.job import Job
from sizewright_server.planning.objectives import in_words, value_of
from sizewright_server.planning.plan import Advice, Constraints, Objective
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.planning.prices import details_of
from sizewright_server.planning.relaxations import relaxations
from sizewright_server.planning.techniques import figures, forms
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


def of(workload: Workload) -> Question:
    """A workload, asked of the large clouds' on-demand offers."""
    asked = Constraints(providers=("aws", "gcp", "azure"), purchase=("on-demand",))
    return Question(prepare_any(workload), asked, 1, date(2026, 11, 24))


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


def advised(asked: Question) -> tuple[Advice, ...]:
    """Advice on the best plan of a question."""
    sizing = bundled_sizing()
    result = recommend(asked, INDEX)
    index = {True: sizing.index, False: sizing.host_index}
    return Advisor(asked, lambda workload: index[uses_gpu(workload)], result).advice()


def named(found: tuple[Advice, ...]) -> set[str]:
    """Techniques of the pieces."""
    return {step.name for advice in found for step in advice.steps}


def test_advice_searches_again_what_the_plan_may_use_and_tells_what_it_no_longer_needs() -> None:
    exact = tuple(
        n for n, known in figures().items() if known.searched and not known.changes_results
    )
    asked = question(techniques=exact)
    used = {step.name for step in recommend(asked, INDEX).plans[0].variant.steps}

    qlora = next(a for a in advised(asked) if {s.name for s in a.steps} == {"qlora"})

    assert qlora.plan is not None
    gone = used - {step.name for step in qlora.plan.variant.steps}
    assert gone
    assert "It no longer needs" in " ".join(qlora.details)


def test_several_techniques_together_do_more_than_the_best_of_them() -> None:
    preset = "meta-llama/Llama-3.2-1B"
    run = Training(
        "bf16-mixed", Optimizer("adamw"), micro_batch=4, seq_len=2048, layout=Layout(dp=8)
    )
    data = Dataset(rows=10**6, tokens_per_row=2048, container="in-memory")
    source = ModelSource(find_preset(preset).config, preset=preset)
    asked = of(Workload(source, run, dataset=data))

    first, *rest = advised(asked)

    assert len(first.steps) > 1
    assert first.message.startswith("Together ")
    assert not any(step.figures.changes_results for step in first.steps)
    alone = [a for a in rest if a.plan and not any(s.figures.changes_results for s in a.steps)]
    slow = ("optimizer-offload", "nvme-offload")
    for one in alone:
        if one.steps[0].name not in slow:
            assert one.cost_per_hour_saved_nanos_usd <= first.cost_per_hour_saved_nanos_usd


def test_where_nothing_fits_the_fewest_techniques_make_something_fit() -> None:
    asked = question(devices=("T4", "A10G"))
    assert not [p for p in recommend(asked, INDEX).plans if p.verdict == "fits"]

    found = advised(asked)

    assert found
    for advice in found:
        assert advice.plan is not None
        assert advice.plan.verdict == "fits"
        assert "fit, at $" in advice.message
    assert "cpu-only" not in named(found)


def test_where_no_pair_makes_anything_fit_three_techniques_do() -> None:
    run = Training("fp16-mixed", Optimizer("adamw"), micro_batch=1, seq_len=4096)
    workload = Workload(ModelSource(find_preset(LLAMA).config, preset=LLAMA), run)
    asked = of(workload)
    asked = replace(asked, constraints=replace(asked.constraints, devices=("T4",), max_gpus=1))
    assert not recommend(asked, INDEX).plans

    found = advised(asked)

    assert found
    for advice in found:
        assert len(advice.steps) == 3
        assert advice.plan is not None
        assert advice.plan.verdict == "fits"
        assert "fit, at $" in advice.message
    names = {tuple(step.name for step in advice.steps) for advice in found}
    assert ("fused-linear-loss", "activation-checkpointing", "qlora") in names


def test_an_answer_says_how_many_sets_of_techniques_it_did_not_try() -> None:
    run = Training("fp16-mixed", Optimizer("adamw"), micro_batch=1, seq_len=4096)
    workload = Workload(ModelSource(find_preset(LLAMA).config, preset=LLAMA), run)
    asked = of(workload)
    asked = replace(asked, constraints=replace(asked.constraints, devices=("T4",), max_gpus=1))

    advisor = Advisor(asked, lambda _: INDEX, recommend(asked, INDEX))
    advisor.advice()

    (told,) = advisor.notices
    assert told.code == "advice-bounded"
    found = re.search(r"Of ([\d,]+) sets of three techniques the 128 that free most", told.message)
    assert found is not None
    assert int(found[1].replace(",", "")) > 128


def test_an_answer_that_tried_everything_says_nothing_of_it() -> None:
    asked = question(devices=("T4", "A10G"))
    advisor = Advisor(asked, lambda _: INDEX, recommend(asked, INDEX))

    assert advisor.advice()
    assert advisor.notices == []


def test_a_gpu_that_does_not_earn_its_price_is_told_so_and_one_that_does_is_not() -> None:
    small = ModelSource(find_preset("google-bert/bert-base-uncased").config)
    run = Inference("transformers", "fp32", "fp32", 1, 2, 0, "none", 0)
    busy = replace(run, batch=64, input_tokens=512)

    assert "cpu-only" in named(advised(of(Workload(small, run))))
    assert "cpu-only" not in named(advised(of(Workload(small, busy))))


def test_a_dearer_job_is_told_though_its_hour_is_cheaper() -> None:
    for advice in advised(question()):
        if advice.plan is None or advice.work_cost_factor is None:
            continue
        told = "the whole job costs" in " ".join(advice.details)
        assert told == (advice.work_cost_factor > 1.03), advice.message


def test_offload_to_a_disk_is_priced_in_seconds_a_step() -> None:
    changed, step = forms("nvme-offload", work())[0]
    layout = Layout(zero=3, sharding="deepspeed", offload="nvme")

    (words,) = details_of((step,), prepare_any(changed), layout, 1)

    # fp32 weights and two moments of 8.03e9 parameters, read and written at 1.5e9 to 6.5e9 B/s.
    assert "89.7 GiB of optimizer state on a local NVMe drive" in words
    assert "29.7 to 128.5 s on one drive" in words
