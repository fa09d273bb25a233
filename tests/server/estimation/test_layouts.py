"""Parallel layouts: what each leaves on a rank, which stage is the fullest, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.accuracy.scoring import score

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.layout import FsdpSettings, MegatronSettings, ZeroBuffers
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.pipeline import chunks_in_flight, positions
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

GROUND_TRUTH = Path(__file__).parents[2] / "fixtures" / "groundtruth" / "sharded.jsonl"
LLAMA = find_preset("meta-llama/Meta-Llama-3-8B").config
MIXTRAL = find_preset("mistralai/Mixtral-8x7B-v0.1").config
COUNT = 8_030_261_248


def training(layout: Layout | None, **changes: Any) -> Training:
    run = Training("bf16-mixed", Optimizer("adamw", "fused"), 1, 4096, layout=layout)
    return replace(run, **changes)


def group_of(layout: Layout, config: dict[str, Any] = LLAMA, **changes: Any) -> TrainingGroup:
    prepared = prepare(Workload(ModelSource(config), training(layout, **changes)))
    group = prepared.group([layout])
    assert isinstance(group, TrainingGroup)
    return group


def estimate(layout: Layout, config: dict[str, Any] = LLAMA, **changes: Any) -> MemoryEstimate:
    prepared = prepare(Workload(ModelSource(config), training(layout, **changes)))
    return prepared.estimate(layout, 8, device_overhead("nvidia", "9.0"))


def allocated(layout: Layout, config: dict[str, Any] = LLAMA, **changes: Any) -> int:
    gpu = estimate(layout, config, **changes).pool("gpu").gpu
    assert gpu is not None
    return gpu.allocated.best_bytes


def refusals(layout: Layout, config: dict[str, Any] = LLAMA, **changes: Any) -> dict[str, str]:
    with pytest.raises(UnsupportedWorkload) as caught:
        prepare(Workload(ModelSource(config), training(layout, **changes)))
    prefix = "workload.training.parallelism.explicit."
    return {v.field.removeprefix(prefix): v.description for v in caught.value.violations}


# -- against measurements -----------------------------------------------------------------------


def test_published_runs_of_megatron_torchtitan_and_fsdp_are_met() -> None:
    groups = score([GROUND_TRUTH])["groups"]

    megatron = groups["training/allocated_peak"]
    assert (megatron["n"], megatron["unsupported"]) == (6, 0)
    assert megatron["p90_abs_error"] <= 0.06
    assert megatron["share_within_high"] == 1
    sharded = groups["training/reserved_peak"]
    assert (sharded["n"], sharded["unsupported"]) == (5, 0)
    assert sharded["median_abs_error"] <= 0.07
    assert sharded["p90_abs_error"] <= 0.14
    assert sharded["share_within_high"] == 1


def test_fsdp2_as_traced_is_met_within_4_percent() -> None:
    traced = score([GROUND_TRUTH])["groups"]["trace/allocated_peak"]

    assert (traced["n"], traced["unsupported"]) == (8, 0)
    assert traced["median_abs_error"] <= 0.01
    assert traced["p90_abs_error"] <= 0.04


# -- what the libraries keep --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "weights", "optimizer"),
    [
        (Layout(dp=8, zero=1, sharding="deepspeed"), 2, 12 / 8),
        (Layout(dp=8, zero=2, sharding="deepspeed"), 2, 12 / 8),
        (Layout(dp=8, zero=3, sharding="deepspeed"), 2 / 8, 12 / 8),
        (Layout(dp=8, zero=3, sharding="fsdp2"), 4 / 8, 8 / 8),
        (Layout(dp=8, zero=3, sharding="fsdp1"), 4 / 8, 8 / 8),
        (Layout(dp=8, sharding="megatron"), 2, 12),
        (Layout(dp=8, zero=1, sharding="megatron"), 2, 12 / 8),
        (Layout(dp=16, zero=3, sharding="fsdp2", shard_size=8), 4 / 8, 8 / 8),
        (Layout(dp=4, cp=2, zero=3, sharding="fsdp2"), 4 / 8, 8 / 8),
    ],
)
def test_states_are_the_bytes_a_parameter_that_each_library_documents(
    layout: Layout, weights: float, optimizer: float
) -> None:
    resident = group_of(layout).resident

    assert int(resident.weights[0]) == pytest.approx(COUNT * weights, rel=0.01)
    assert int(resident.optimizer[0]) == pytest.approx(COUNT * optimizer, rel=0.01)


def test_megatron_keeps_fp32_gradients_and_16_bit_ones_when_told() -> None:
    kept = group_of(Layout(zero=1, sharding="megatron")).resident.gradients_kept
    half = Layout(zero=1, sharding="megatron", megatron=MegatronSettings(fp32_main_gradients=False))

    assert int(kept[0]) == pytest.approx(4 * COUNT, rel=0.01)
    assert int(group_of(half).resident.gradients_kept[0]) == pytest.approx(2 * COUNT, rel=0.01)


@pytest.mark.parametrize(
    ("zero", "stated", "elements"),
    [
        (2, ZeroBuffers(reduce_bucket_size=200_000_000), 200_000_000),
        (2, ZeroBuffers(reduce_bucket_size=200_000_000, overlap_comm=True), 400_000_000),
        (3, ZeroBuffers(reduce_bucket_size=200_000_000), 400_000_000),
        (1, ZeroBuffers(reduce_bucket_size=200_000_000), 200_000_000),
        (2, ZeroBuffers(), 500_000_000),
    ],
)
def test_deepspeeds_buckets_are_allocated_at_the_configured_size(
    zero: int, stated: ZeroBuffers, elements: int
) -> None:
    layout = Layout(dp=8, zero=zero, sharding="deepspeed", zero_buffers=stated)

    assert int(group_of(layout).resident.buckets[0]) == 2 * elements


def test_a_bucket_size_that_is_not_stated_widens_the_interval_to_transformers_auto() -> None:
    layout = Layout(dp=8, zero=2, sharding="deepspeed")
    unknown = group_of(layout).working.buffers
    stated = group_of(replace(layout, zero_buffers=ZeroBuffers(reduce_bucket_size=1 << 24)))

    assert int(unknown.less[0]) == 2 * (500_000_000 - 16_777_216)
    assert int(stated.working.buffers.less[0]) == 0


def test_ddps_buckets_are_one_more_copy_of_the_gradients_unless_they_are_views() -> None:
    def at_the_step(layout: Layout) -> int:
        phases = estimate(layout).pool("gpu").phases
        return next(p.total.best_bytes for p in phases if p.name == "optimizer-step")

    copies, views = at_the_step(Layout(dp=8)), at_the_step(Layout(dp=8, bucket_view=True))
    assert copies - views == pytest.approx(4 * COUNT, rel=0.01)


def test_the_root_unit_of_fsdp_is_reduced_whole_in_fp32_when_the_backward_pass_ends() -> None:
    group = group_of(Layout(dp=8, zero=3, sharding="fsdp2"))
    root = 2 * 128_256 * 4096 + 4096

    assert int(group.working.closing()[0]) == pytest.approx(4 * root, rel=0.001)


def test_tables_as_units_of_their_own_leave_little_in_the_root() -> None:
    tables = FsdpSettings(wrap="block-and-tables")
    group = group_of(Layout(dp=8, zero=3, sharding="fsdp2", fsdp=tables))

    assert int(group.working.closing()[0]) == 0


# -- pipelines ----------------------------------------------------------------------------------


def ones(*values: int) -> Column:
    return np.array(values, dtype=np.int64)


def test_1f1b_holds_as_many_micro_batches_as_stages_follow_and_its_own() -> None:
    pp, one = ones(4, 4), ones(1, 1)

    assert chunks_in_flight("1f1b", pp, one, 16, 0 * pp).tolist() == [4, 4]
    assert chunks_in_flight("1f1b", pp, one, 2, 0 * pp).tolist() == [2, 2]
    assert chunks_in_flight("1f1b", pp, one, 16, pp - 1).tolist() == [1, 1]
    assert chunks_in_flight("gpipe", pp, one, 16, pp - 1).tolist() == [16, 16]
    assert chunks_in_flight("zero-bubble", pp, one, 16, pp - 1).tolist() == [4, 4]


def test_interleaving_warms_up_twice_the_stages_that_follow_and_all_but_one_chunk() -> None:
    pp, chunks = ones(4), ones(8)

    assert chunks_in_flight("1f1b", pp, chunks, 4, 0 * pp).tolist() == [32]
    assert chunks_in_flight("1f1b", pp, chunks, 4, pp - 1).tolist() == [29]


@given(st.integers(2, 16), st.integers(1, 4), st.sampled_from(["fsdp2", "megatron"]))
@settings(max_examples=25, deadline=None)
def test_the_stages_of_a_pipeline_hold_every_layer_once(pp: int, per: int, library: Any) -> None:
    virtual = per if 32 % (pp * per) == 0 else 1
    layout = Layout(pp=pp, virtual_stages=virtual, sharding=library, zero=3 * (library == "fsdp2"))
    layout = layout if 32 % (pp * virtual) == 0 or library == "fsdp2" else replace(layout, pp=2)
    run = training(layout, gradient_accumulation_steps=layout.pp)
    prepared = prepare(Workload(ModelSource(LLAMA), run))
    seen = [TrainingGroup(prepared.model, run, [layout], [at]) for at in positions(layout.pp)]

    first, last = seen[0].counts, seen[-1].counts
    assert (int(first[0][0]), int(first[-1][0])) == (1, 0)
    assert (int(last[0][0]), int(last[-1][0])) == (0, 1)
    for group in seen:
        assert abs(int(group.counts[1][0]) - 32 / layout.pp) < 1


def test_an_estimate_of_a_pipeline_names_the_fullest_stage_and_says_why() -> None:
    layout = Layout(dp=2, pp=4, zero=3, sharding="fsdp2")
    pool = estimate(layout, gradient_accumulation_steps=8, seq_len=8192).pool("gpu")
    short = estimate(layout, gradient_accumulation_steps=8, seq_len=256).pool("gpu")

    assert [stage.stage for stage in pool.stages] == [0, 1, 3]
    assert pool.scope.startswith("ranks of pipeline stage 0 of 0 to 3")
    assert "micro-batches in flight" in pool.scope
    fullest = max(pool.stages, key=lambda stage: stage.allocated.best_bytes)
    assert fullest.stage == 0
    assert short.stages[-1].allocated.best_bytes < pool.stages[-1].allocated.best_bytes


def test_gpipe_needs_more_than_1f1b_when_micro_batches_outnumber_the_stages() -> None:
    layout = Layout(dp=1, pp=4, zero=3, sharding="fsdp2")
    run: dict[str, Any] = {"gradient_accumulation_steps": 16}

    gpipe = allocated(replace(layout, pipeline_schedule="gpipe"), **run)
    bubbles = allocated(replace(layout, pipeline_schedule="zero-bubble"), **run)
    assert gpipe > 2 * allocated(layout, **run)
    assert bubbles >= allocated(layout, **run)


# -- tokens and experts -------------------------------------------------------------------------


def test_sequence_parallelism_splits_what_tensor_parallel_ranks_hold_alike() -> None:
    plain = Layout(tp=8, sharding="megatron")

    assert allocated(replace(plain, sequence_parallel=True)) < 0.9 * allocated(plain)


def test_a_ring_halves_activations_and_pays_for_what_it_exchanges() -> None:
    run: dict[str, Any] = {"seq_len": 32768, "checkpointing": "full"}
    whole = allocated(Layout(dp=4, zero=3, sharding="fsdp2"), **run)
    halves = allocated(Layout(dp=2, cp=2, zero=3, sharding="fsdp2"), **run)

    assert 0.5 * whole < halves < 0.75 * whole


def test_experts_are_shared_out_and_the_busiest_rank_widens_the_interval() -> None:
    layout = Layout(dp=8, zero=1, tp=2, sharding="megatron", sequence_parallel=True)
    shared = replace(layout, ep=8)
    stated = replace(shared, expert_imbalance=1.5)

    assert int(group_of(shared, MIXTRAL).resident.weights[0]) < 0.25 * int(
        group_of(layout, MIXTRAL).resident.weights[0]
    )
    unknown, known = (
        estimate(one, MIXTRAL, precision="bf16").pool("gpu").gpu for one in (shared, stated)
    )
    assert unknown is not None
    assert known is not None
    wide = unknown.allocated.high_bytes - unknown.allocated.low_bytes
    assert known.allocated.high_bytes - known.allocated.low_bytes < wide
    assert known.allocated.best_bytes > unknown.allocated.best_bytes


# -- offload ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "gone"),
    [
        (Layout(dp=8, zero=2, sharding="deepspeed", offload="optimizer"), 12 / 8 + 2 / 8),
        (Layout(dp=8, zero=3, sharding="fsdp2", offload="optimizer-and-parameters"), 16 / 8),
        (Layout(dp=8, zero=1, sharding="megatron", offload="optimizer"), 12 / 8),
        (Layout(dp=8, zero=3, sharding="deepspeed", offload="nvme"), 12 / 8 + 2 / 8),
    ],
)
def test_offloaded_states_leave_the_gpu(layout: Layout, gone: float) -> None:
    run: dict[str, Any] = {"checkpointing": "full", "seq_len": 512}
    moved = group_of(layout, **run)
    stays = group_of(replace(layout, offload="none"), **run)

    def step(group: TrainingGroup) -> int:
        return int((group.resident.total + group.schedule.step_bytes)[0])

    assert step(stays) - step(moved) == pytest.approx(COUNT * gone, rel=0.02)


def test_offloaded_states_are_counted_in_host_memory() -> None:
    layout = Layout(dp=8, zero=2, sharding="deepspeed", offload="optimizer")
    host = estimate(layout).pool("host").peak.best_bytes
    without = estimate(replace(layout, offload="none")).pool("host").peak.best_bytes

    assert host - without > 12 * COUNT


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "changes", "field", "reason"),
    [
        (Layout(tp=3), {}, "tp", "does not divide 32 heads"),
        (Layout(pp=64, zero=3, sharding="fsdp2"), {}, "pp", "exceed 32 layers"),
        (Layout(pp=2, zero=3, sharding="deepspeed"), {}, "pp", "refuses ZeRO stages 2 and 3"),
        (Layout(pp=2, zero=3, sharding="fsdp1"), {}, "pp", "use fsdp2"),
        (Layout(pp=3, sharding="megatron"), {}, "pp", "do not divide by 3"),
        (Layout(ep=2), {}, "ep", "has no experts"),
        (Layout(cp=2), {"attention": "eager"}, "cp", "eager attention needs every key"),
        (Layout(cp=3), {}, "cp", "do not divide"),
        (Layout(dp=2, zero=3), {}, "implementation", "ddp does not do ZeRO stage 3"),
        (Layout(sequence_parallel=True), {}, "sequence_parallel", "tp is 1"),
        (Layout(offload="nvme"), {}, "offload", "not done beside ddp"),
        (Layout(virtual_stages=2), {}, "virtual_pipeline_stages", "no pipeline"),
        (
            Layout(dp=2, zero=2, sharding="deepspeed", offload="nvme"),
            {},
            "offload",
            "needs ZeRO stage 3",
        ),
        (
            Layout(pp=4, virtual_stages=2, sharding="megatron"),
            {"gradient_accumulation_steps": 6},
            "virtual_pipeline_stages",
            "multiples of the 4 stages",
        ),
        (
            Layout(dp=6, zero=3, sharding="fsdp2", shard_size=4),
            {},
            "shard_size",
            "4 does not divide 6",
        ),
    ],
)
def test_contradictions_are_refused_with_the_reason(
    layout: Layout, changes: dict[str, Any], field: str, reason: str
) -> None:
    assert reason in refusals(layout, **changes)[field]


def test_experts_that_do_not_divide_and_deepspeeds_stage_3_are_refused() -> None:
    found = refusals(Layout(dp=16, ep=16, zero=3, sharding="deepspeed"), MIXTRAL)

    assert "ep" in found
    assert "8 experts" in found["ep"] or "ZeRO stage 3" in found["ep"]


def test_every_contradiction_of_a_layout_is_named_at_once() -> None:
    layout = Layout(tp=3, pp=64, ep=2, zero=3, sharding="deepspeed", offload="nvme")

    assert {"tp", "pp", "ep"} <= refusals(layout).keys()


# -- the planner's columns ----------------------------------------------------------------------


def test_layouts_together_have_the_figures_each_has_alone() -> None:
    run = Training("bf16-mixed", Optimizer("adamw"), 1, 8192, gradient_accumulation_steps=4)
    prepared = prepare(Workload(ModelSource(LLAMA), run))
    layouts = prepared.layouts_for(16, 8)
    together = prepared.columns(layouts)

    assert {layout.pp for layout in layouts} == {1, 2, 4}
    assert {layout.cp for layout in layouts} >= {1, 2, 4}
    for row, layout in enumerate(layouts):
        alone = prepare(Workload(ModelSource(LLAMA), run)).columns([layout])
        assert int(together.gpu_reserved_best_bytes[row]) == int(alone.gpu_reserved_best_bytes[0])
        assert int(together.gpu_reserved_high_bytes[row]) == int(alone.gpu_reserved_high_bytes[0])


def test_a_rank_of_a_ring_keeps_a_thousand_tokens() -> None:
    run = Training("bf16-mixed", Optimizer("adamw"), 1, 8192)
    layouts = prepare(Workload(ModelSource(LLAMA), run)).layouts_for(64, 8)

    assert max(layout.cp for layout in layouts) == 8


def test_norms_and_residuals_are_split_where_tensor_parallel_ranks_are_sharded_too() -> None:
    run = Training("bf16-mixed", Optimizer("adamw"), 1, 8192)
    prepared = prepare(Workload(ModelSource(LLAMA), run))
    split = [layout for layout in prepared.layouts_for(16, 8) if layout.sequence_parallel]

    assert {layout.tp for layout in split} == {2, 4, 8}
    assert {layout.sharding for layout in split} == {"fsdp2"}
    odd = prepare(Workload(ModelSource(LLAMA), replace(run, seq_len=8191)))
    assert not any(layout.sequence_parallel for layout in odd.layouts_for(16, 8))


def test_transformers_trainer_is_tried_with_what_it_runs_alone() -> None:
    run = Training("bf16-mixed", Optimizer("adamw"), 1, 8192, gradient_accumulation_steps=8)
    trainer = prepare(Workload(ModelSource(LLAMA), replace(run, loop="trainer")))

    layouts = trainer.layouts_for(8, 8)

    assert {layout.pp for layout in layouts} == {1}
    assert not any(layout.sequence_parallel for layout in layouts)
    assert {layout.zero for layout in layouts} == {0, 1, 2, 3}


def test_a_pipeline_of_single_ranks_shards_nothing() -> None:
    run = Training("bf16-mixed", Optimizer("adamw"), 1, 4096, gradient_accumulation_steps=8)
    prepared = prepare(Workload(ModelSource(LLAMA), run))

    alone = [one for one in prepared.layouts_for(8, 8) if one.pp > 1 and one.dp == 1]

    assert alone
    assert {layout.zero for layout in alone} == {0}


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 3]))
@settings(max_examples=12, deadline=None)
def test_more_ranks_never_need_more_memory_each(ranks: int, zero: int) -> None:
    library: Any = "fsdp2" if zero == 3 else "deepspeed"
    layout = Layout(dp=2 * ranks, zero=zero, sharding=library)

    assert allocated(replace(layout, dp=4 * ranks)) <= allocated(layout)


def test_each_parallel_dimension_has_a_communicator() -> None:
    run = training(Layout(), gradient_accumulation_steps=4)
    prepared = prepare(Workload(ModelSource(LLAMA), run))

    assert prepared.collectives(Layout())[0] == 0
    assert prepared.collectives(Layout(dp=8))[0] == 1
    assert prepared.collectives(Layout(dp=4, tp=2, pp=2))[0] == 3
    assert prepared.collectives(Layout(dp=16, zero=3, sharding="fsdp2", shard_size=8))[0] == 2


def test_a_mixture_is_tried_with_its_experts_shared_out() -> None:
    prepared = prepare(Workload(ModelSource(MIXTRAL), training(None)))
    layout = Layout(dp=8, zero=3, sharding="fsdp2")
    shared, whole = (group_of(replace(layout, ep=ep), MIXTRAL) for ep in (8, 1))

    assert {layout.ep for layout in prepared.layouts_for(8, 8)} == {1, 2, 4, 8}
    # What a unit gathers shrinks; what is at rest does not.
    assert int(shared.resident.weights[0]) == int(whole.resident.weights[0])
    assert int(shared.working.forward()[1][0]) < 0.3 * int(whole.working.forward()[1][0])
