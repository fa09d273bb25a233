"""Buffers of DeepSpeed and DDP for three models, by sums from DeepSpeed 0.19 and PyTorch 2.13."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.layout import ZeroBuffers
from sizewright_server.estimation.pipeline import positions
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

NAMES = ("meta-llama/Llama-3.2-1B", "meta-llama/Meta-Llama-3-8B", "Qwen/Qwen2.5-14B")
MODELS = pytest.mark.parametrize("config", [find_preset(n).config for n in NAMES], ids=NAMES)
BUCKET = 500_000_000
RANKS = 8


def group_of(config: dict[str, Any], layout: Layout, **changes: Any) -> TrainingGroup:
    run = Training("bf16-mixed", Optimizer("adamw", "fused"), 1, 2048, layout=layout)
    run = replace(run, **changes)
    group = prepare(Workload(ModelSource(config), run)).group([layout])
    assert isinstance(group, TrainingGroup)
    return group


def deepspeed(zero: int, **buffers: Any) -> Layout:
    return Layout(dp=RANKS, zero=zero, sharding="deepspeed", zero_buffers=ZeroBuffers(**buffers))


def count_of(config: dict[str, Any]) -> int:
    return prepare(
        Workload(ModelSource(config), Training("bf16", Optimizer("adamw"), 1, 8))
    ).parameter_count


@MODELS
@pytest.mark.parametrize("zero", [1, 2])
def test_stages_1_and_2_hold_a_whole_bucket_and_two_that_overlap(
    config: dict[str, Any], zero: int
) -> None:
    stated = {"reduce_bucket_size": BUCKET}

    # torch.empty(reduce_bucket_size) in the gradients' 16 bits, whatever the model's size.
    for overlap, buckets in ((False, 1), (True, 2)):
        group = group_of(config, deepspeed(zero, overlap_comm=overlap, **stated))
        assert int(group.working.buffers.best[0]) == buckets * 2 * BUCKET


@MODELS
def test_stage_3_holds_a_bucket_and_what_is_put_together_of_it(config: dict[str, Any]) -> None:
    group = group_of(config, deepspeed(3, reduce_bucket_size=BUCKET))

    held = int(group.working.buffers.best[0])

    assert held == pytest.approx(2 * BUCKET + 2 * min(BUCKET, count_of(config)), rel=1e-3)


@MODELS
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_scattered_gradients_are_flattened_bucket_by_bucket(
    config: dict[str, Any], zero: int
) -> None:
    given = {"reduce_bucket_size": 50_000_000, "contiguous_gradients": False}

    assert int(group_of(config, deepspeed(zero, **given)).working.buffers.best[0]) == 100_000_000


@MODELS
def test_states_are_split_by_stage(config: dict[str, Any]) -> None:
    count = count_of(config)
    by_stage = {zero: group_of(config, deepspeed(zero)).resident for zero in (1, 2, 3)}

    for zero, held in by_stage.items():
        # 16-bit weights; fp32 master copy and two moments.
        split = RANKS if zero == 3 else 1
        assert int(held.weights[0]) == pytest.approx(2 * count / split, rel=1e-3)
        assert int(held.optimizer[0]) == pytest.approx(12 * count / RANKS, rel=1e-3)
    # Stage 3's gradient shards are allocated once; the others' come and go.
    assert int(by_stage[3].gradients_kept[0]) == pytest.approx(2 * count / RANKS, rel=1e-3)
    assert int(by_stage[2].gradients_kept[0]) == 0


@MODELS
def test_stage_3_fetches_ahead_and_keeps_what_is_used_again_soon(config: dict[str, Any]) -> None:
    given = {"prefetch_bucket_size": 50_000_000, "max_live_parameters": 10**9}
    near = group_of(config, deepspeed(3, max_reuse_distance=10**9, **given))
    never = group_of(config, deepspeed(3, max_reuse_distance=0, **given))
    last = len(near.segments) - 1
    table = config["vocab_size"] * config["hidden_size"]

    # The bucket and the largest module, the table; at the turn half the reuse distance.
    assert int(never.working.forward()[last][0]) == 2 * (50_000_000 + table)
    assert int(near.working.forward()[0][0]) == 2 * (50_000_000 + table)
    turn = min(5 * 10**8, count_of(config))
    assert int(near.working.forward()[last][0]) == pytest.approx(
        2 * max(turn, 50_000_000 + table), rel=1e-3
    )


@MODELS
def test_ddps_buckets_are_the_gradients_once_more_or_the_gradients_themselves(
    config: dict[str, Any],
) -> None:
    count = count_of(config)
    apart, views = (Layout(dp=RANKS, bucket_view=view) for view in (False, True))

    assert int(group_of(config, apart).working.buffers.best[0]) == pytest.approx(
        4 * count, rel=1e-3
    )
    held = group_of(config, views)
    assert int(held.working.buffers.best[0]) == 0
    assert int(held.resident.gradients_kept[0]) == pytest.approx(4 * count, rel=1e-3)
    assert int(group_of(config, Layout()).working.buffers.best[0]) == 0


@MODELS
def test_a_ring_holds_two_chunks_of_keys_and_ulysses_heads_for_tokens(
    config: dict[str, Any],
) -> None:
    ranks = 4
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    queries = 2048 // ranks * config["num_attention_heads"] * size
    keys = 2048 // ranks * config["num_key_value_heads"] * size

    def held(method: Any) -> list[int]:
        layout = Layout(dp=2, cp=ranks, zero=3, sharding="fsdp2", context_method=method)
        return [int(column[0]) for column in group_of(config, layout)._exchanged]

    # Keys and values that compute and that arrive, and results added up in fp32; in the backward
    # pass their gradients travel too.
    assert held("ring") == [2 * 2 * 2 * keys + 4 * queries, 4 * 2 * 2 * keys + 4 * queries]
    # Keys and values of the whole sequence.
    assert held("all-gather") == [ranks * 2 * 2 * keys, 2 * ranks * 2 * 2 * keys]
    # Queries, results, keys and values with other heads of all tokens; then their gradients.
    assert held("ulysses")[0] == 2 * 2 * queries + 2 * 2 * keys
    assert held("ulysses")[1] == 2 * held("ulysses")[0]


@MODELS
def test_a_zero_bubble_stage_holds_what_the_first_of_1f1b_holds(config: dict[str, Any]) -> None:
    plain = Layout(dp=1, zero=1, pp=4, sharding="megatron")
    micro = {"gradient_accumulation_steps": 16}

    def in_flight(schedule: Any) -> list[int]:
        layout = replace(plain, pipeline_schedule=schedule)
        one = group_of(config, layout, **micro)
        held = TrainingGroup(one.architecture, one.training, [layout], positions(4))._chunks
        return [int(column) for column in held]

    assert in_flight("1f1b") == [4, 3, 1]
    assert in_flight("zero-bubble") == [4, 4, 4]
    assert in_flight("gpipe") == [16, 16, 16]
