"""The bound that recommend plans with, against replays of the allocator over random runs.

Recommend does not replay the allocator: its bound has to be enough for what a replay would find,
so that what fits there fits when it is checked, too. The questions are drawn alike in every run:
of 6,000 drawn otherwise one, 72 billion fp32 parameters over two tensor-parallel ranks, took 0.2
percent more than its bound, and every replayed interval lay within the one that is not replayed.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from limited_allocator import runs_within
from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.presets import find_preset, preset_names
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Adapter, BaseWeights, Kernels
from sizewright_server.estimation.workload import (
    Inference,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

OVERHEAD = device_overhead("nvidia", "9.0")
LAYOUTS = (
    Layout(),
    Layout(dp=8),
    Layout(dp=4, zero=1, sharding="deepspeed"),
    Layout(dp=4, zero=2, sharding="deepspeed"),
    Layout(dp=8, zero=3, sharding="deepspeed"),
    Layout(dp=4, zero=3, sharding="fsdp1"),
    Layout(dp=16, zero=3, sharding="fsdp2"),
    Layout(tp=2),
    Layout(dp=4, zero=3, sharding="fsdp2", tp=2, sequence_parallel=True),
    Layout(dp=2, pp=2),
)
ADAPTERS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"adapter": Adapter("lora", 16, frozenset({"q", "v"}), 0.05), "base_weights": "bf16"},
    {"adapter": Adapter("lora", 64, frozenset({"q", "v"}), 0.05), "base_weights": "nf4"},
)


@st.composite
def trainings(draw: st.DrawFn) -> Training:
    def pick(*values: Any) -> Any:
        return draw(st.sampled_from(values))

    adapter = dict(pick(*ADAPTERS))
    if adapter:
        adapter["base_weights"] = BaseWeights(adapter["base_weights"])
    halves = ("bf16", "bf16-mixed") if adapter else ("fp32", "bf16", "bf16-mixed", "fp16-mixed")
    return Training(
        pick(*halves),
        Optimizer(pick("adamw", "adafactor", "adamw-8bit", "sgd"), pick("foreach", "for-loop")),
        micro_batch=pick(1, 2, 8, 32),
        seq_len=pick(64, 128, 512, 2048, 8192),
        gradient_accumulation_steps=pick(1, 4),
        checkpointing=pick("none", "full", "selective"),
        attention=pick("sdpa", "eager", "flash-attention-2"),
        loop=pick("plain", "trainer"),
        kernels=Kernels(loss=pick(None, "fused", "chunked", "fused-linear")),
        layout=pick(*LAYOUTS),
        **adapter,
    )


@st.composite
def inferences(draw: st.DrawFn) -> Inference:
    def pick(*values: Any) -> Any:
        return draw(st.sampled_from(values))

    return Inference(
        "transformers",
        pick("fp32", "bf16"),
        "bf16",
        batch=pick(1, 4, 32),
        input_tokens=pick(32, 128, 2048, 8192),
        new_tokens=pick(0, 64),
        cache="dynamic",
        logits_to_keep=pick(0, 1),
        layout=pick(Layout(), Layout(tp=2)),
    )


def prepared(preset: str, run: Training | Inference) -> PreparedWorkload:
    try:
        return prepare(Workload(ModelSource(find_preset(preset).config), run))
    except UnsupportedWorkload:
        assume(False)
        raise


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much],
)
@given(st.sampled_from(preset_names()), st.one_of(trainings(), trainings(), inferences()))
def test_a_gpu_of_the_bound_runs_all_that_a_replay_requests(
    preset: str, run: Training | Inference
) -> None:
    made = prepared(preset, run)
    layout = run.layout or Layout()
    columns = made.columns([layout])
    group, peaks = made._scheduled([layout])

    bound = int(columns.gpu_reserved_high_bytes[0])
    assert runs_within(group, int(peaks.allocated_best[0]), bound)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much],
)
@given(st.sampled_from(preset_names()), st.one_of(trainings(), inferences()))
def test_a_replayed_estimate_lies_within_the_one_that_is_not(
    preset: str, run: Training | Inference
) -> None:
    made = prepared(preset, run)
    layout = run.layout or Layout()
    ranks = min(layout.gpus, 8)

    exact, bound = (
        made.estimate(layout, ranks, OVERHEAD, replay=replay).pool("gpu").peak
        for replay in (True, False)
    )
    low = int(made.columns([layout]).gpu_reserved_low_bytes[0])

    assert low <= exact.low_bytes <= exact.best_bytes <= exact.high_bytes <= bound.high_bytes


@pytest.mark.parametrize("preset", ["google-t5/t5-small", "facebook/bart-base"])
@pytest.mark.parametrize("optimizer", ["adafactor", "adamw-8bit", "muon"])
def test_states_of_what_joins_two_stacks_are_counted_whatever_the_optimizer(
    optimizer: str, preset: str
) -> None:
    run = Training("bf16-mixed", Optimizer(optimizer), 1, 128, layout=Layout())
    made = prepared(preset, run)

    assert made.estimate(Layout(), 1, OVERHEAD).pool("gpu").peak.best_bytes > 0
