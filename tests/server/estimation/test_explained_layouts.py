"""What an estimate says of a layout: numbers that make up the bytes, the stage, and the reason."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.layout import MegatronSettings
from sizewright_server.estimation.memory import MemoryEstimate, PoolEstimate
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

LLAMA = find_preset("meta-llama/Meta-Llama-3-8B").config
GIANT = find_preset("meta-llama/Llama-3.1-405B").config
MIXTRAL = find_preset("mistralai/Mixtral-8x7B-v0.1").config
THREE_D = Layout(
    dp=8, zero=1, tp=8, pp=18, sharding="megatron", sequence_parallel=True, virtual_stages=7
)
TERM = re.compile(r"([\d,]+)[a-z ]* x (\d+) B(?: over (\d+))?")


def workload(config: dict[str, Any], layout: Layout, **changes: Any) -> Workload:
    run = Training("bf16-mixed", Optimizer("adamw", "fused"), 1, 4096, layout=layout)
    return Workload(ModelSource(config), replace(run, **changes))


def estimate(config: dict[str, Any], layout: Layout, **changes: Any) -> MemoryEstimate:
    prepared = prepare(workload(config, layout, **changes))
    return prepared.estimate(layout, 8, device_overhead("nvidia", "9.0"))


def gpu(config: dict[str, Any], layout: Layout, **changes: Any) -> PoolEstimate:
    return estimate(config, layout, **changes).pool("gpu")


def put_in(numbers: str) -> float:
    """Bytes of "a x 2 B over 8 + b of experts x 2 B over 4"."""
    terms = [
        int(count.replace(",", "")) * int(width) / int(ways or 1)
        for count, width, ways in TERM.findall(numbers)
    ]
    assert terms, numbers
    return sum(terms)


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        (LLAMA, Layout()),
        (LLAMA, Layout(dp=8, zero=3, sharding="fsdp2")),
        (LLAMA, Layout(dp=4, zero=2, tp=2, sharding="deepspeed")),
        (LLAMA, Layout(dp=2, zero=1, tp=2, pp=4, sharding="megatron")),
        (GIANT, replace(THREE_D, virtual_stages=1)),
        (MIXTRAL, Layout(dp=8, zero=1, ep=8, sharding="megatron")),
        (MIXTRAL, Layout(dp=4, zero=1, tp=2, pp=2, ep=4, sharding="megatron")),
        (MIXTRAL, Layout(dp=16, zero=3, ep=8, sharding="fsdp2")),
    ],
)
def test_the_numbers_of_weights_states_and_gradients_make_up_their_bytes(
    config: dict[str, Any], layout: Layout
) -> None:
    pool = gpu(config, layout, gradient_accumulation_steps=16)
    parts = {part.name: part for part in pool.phases[0].parts}

    for name in ("weights", "optimizer-state", "gradients-kept"):
        assert put_in(parts[name].numbers) == pytest.approx(parts[name].size.best_bytes, rel=2e-3)


def test_a_405b_model_in_three_dimensions_says_which_stage_is_the_peak_when_and_why() -> None:
    pool = gpu(GIANT, THREE_D, seq_len=8192, gradient_accumulation_steps=36)

    assert pool.scope.startswith("ranks of pipeline stage 0 of 0 to 17, the fullest: it has the ")
    assert pool.peak_phase == "backward"
    assert "the first block to run backward" in pool.peak_reason
    assert [stage.stage for stage in pool.stages] == [0, 1, 17]
    sizes = [stage.reserved.best_bytes for stage in pool.stages]
    assert sizes[0] == max(sizes)


def test_chunks_that_wait_are_counted_by_the_rule_that_is_shown() -> None:
    pool = gpu(GIANT, THREE_D, seq_len=8192, gradient_accumulation_steps=36)
    backward = next(phase for phase in pool.phases if phase.name == "backward")
    waiting = next(part for part in backward.parts if part.name == "waiting-micro-batches")
    found = re.search(
        r"(\d+) chunks in flight = min\((.*), .*\); (\d+) wait .* ([\d,]+) B", waiting.numbers
    )
    assert found
    chunks, others, each = int(found[1]), int(found[3]), int(found[4].replace(",", ""))

    # Interleaved 1F1B: 2 (p - r - 1) + (v - 1) p + 1 on stage r of p with v chunks.
    assert chunks == 2 * 17 + 6 * 18 + 1
    assert found[2] == "2 (18 - 0 - 1) + (7 - 1) 18 + 1"
    hidden = 8192 * 16384 * 2 // 8
    batches = -(-chunks // 7)
    embedding = (batches - 1) * hidden
    sent = (2 + chunks - batches) * hidden
    assert waiting.size.best_bytes == pytest.approx(others * each + sent + embedding, rel=0.01)


@pytest.mark.parametrize("config", [LLAMA, GIANT, MIXTRAL], ids=["8B", "405B", "8x7B"])
def test_stages_are_sent_the_tokens_of_a_sequence_parallel_rank(config: dict[str, Any]) -> None:
    layout = Layout(dp=1, tp=4, pp=2, sharding="megatron")
    sizes = []
    for split in (False, True):
        one = replace(layout, sequence_parallel=split)
        group = TrainingGroup(
            prepare(workload(config, one, gradient_accumulation_steps=8)).model,
            training_of(config, one),
            [one],
            ["last"],
        )
        sizes.append(int(group.resident.waiting[0]))

    # The last stage holds one micro-batch that was sent, and two hidden states that travel.
    assert sizes[0] == 4 * sizes[1] == 3 * 4096 * config["hidden_size"] * 2


def training_of(config: dict[str, Any], layout: Layout) -> Training:
    run = workload(config, layout, gradient_accumulation_steps=8).run
    assert isinstance(run, Training)
    return run


@pytest.mark.parametrize(
    ("layout", "changes", "phase", "words"),
    [
        (
            Layout(),
            {"seq_len": 128, "optimizer": Optimizer("adamw", "foreach")},
            "optimizer-step",
            "outweigh",
        ),
        (Layout(), {"checkpointing": "full", "micro_batch": 8}, "loss", "logits"),
    ],
)
def test_the_reason_is_that_of_the_phase(
    layout: Layout, changes: dict[str, Any], phase: str, words: str
) -> None:
    pool = gpu(LLAMA, layout, **changes)

    assert pool.peak_phase == phase
    assert words in pool.peak_reason


@pytest.mark.parametrize("config", [LLAMA, GIANT, MIXTRAL], ids=["8B", "405B", "8x7B"])
def test_fused_weight_gradients_leave_one_stand_in_of_each_shape(config: dict[str, Any]) -> None:
    layout = Layout(dp=8, zero=1, sharding="megatron")
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    joint = hidden // heads * (heads + 2 * groups) * hidden
    router = config.get("num_local_experts", 0) * hidden
    head = -(-config["vocab_size"] // 128) * 128 * hidden
    shapes = joint + hidden * hidden + 3 * hidden * inner + router + head

    def held(*, fusion: bool) -> int:
        given = MegatronSettings(gradient_accumulation_fusion=fusion)
        own = replace(layout, megatron=given)
        group = prepare(workload(config, own)).group([own])
        assert isinstance(group, TrainingGroup)
        return int(group.resident.stand_ins[0])

    assert held(fusion=True) == 2 * shapes
    assert held(fusion=False) == 0
