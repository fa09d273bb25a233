"""Hours of a job: published speeds lie within the interval, and a stated speed is believed."""

from __future__ import annotations

import pytest

from sizewright_catalog.devices import devices
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import (
    Checkpointing,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)
from sizewright_server.planning.hours import Hours
from sizewright_server.planning.job import Job
from sizewright_server.planning.kinds import NodeKind
from sizewright_server.planning.techniques import forms
from sizewright_server.planning.throughput import hours_of
from sizewright_server.planning.variants import Variant

LLAMA_8B = "meta-llama/Meta-Llama-3-8B"
TOKENS = 10**12


def hours(job: Job, micro_batch: int, tokens: int, checkpointing: Checkpointing) -> Hours:
    """The hours of a Llama 3 8B pre-training job."""
    run = Training(
        precision="bf16-mixed",
        optimizer=Optimizer("adamw"),
        micro_batch=micro_batch,
        seq_len=tokens,
        checkpointing=checkpointing,
    )
    source = ModelSource(find_preset(LLAMA_8B).config, preset=LLAMA_8B)
    tell = hours_of(job)
    assert tell is not None
    return tell(Variant(prepare_any(Workload(source, run))))


def node(device: str) -> NodeKind:
    """A node of eight."""
    return NodeKind(devices()[device], 8, 1.0, 80 * 2**30, 2**40)


@pytest.mark.parametrize(
    ("gpus", "tokens_per_second_per_gpu"),
    # torchtitan benchmarks/llama3_h100_202412_torchtitan.md, FSDP alone, 8,192 tokens.
    [(8, 5_762), (128, 5_605)],
)
def test_the_speeds_torchtitan_published_lie_within_the_interval(
    gpus: int, tokens_per_second_per_gpu: int
) -> None:
    layout = Layout(dp=gpus, zero=3, sharding="fsdp2")

    low, best, high = hours(Job(tokens=TOKENS), 2, 8192, "none").of(layout, node("H100-SXM"))

    measured = TOKENS / (tokens_per_second_per_gpu * gpus) / 3600
    assert low < measured < high
    assert 0.7 < best / measured < 1.4


def test_a_measured_speed_takes_the_place_of_the_model() -> None:
    job = Job(tokens=TOKENS, measured={"H100-SXM": 5000.0})

    _, best, _ = hours(job, 1, 4096, "full").of(Layout(dp=8), node("H100-SXM"))

    assert best == pytest.approx(TOKENS / 5000 / 8 / 3600)


def test_a_job_of_known_hours_takes_them_everywhere() -> None:
    told = hours(Job(runtime_hours=3.5), 1, 4096, "none")

    assert told.of(Layout(), node("A100-80GB-SXM")) == (3.5, 3.5, 3.5)


def test_recomputing_the_forward_pass_takes_a_third_more_time() -> None:
    layout = Layout()
    plain = hours(Job(tokens=TOKENS), 1, 4096, "none").of(layout, node("H100-SXM"))
    again = hours(Job(tokens=TOKENS), 1, 4096, "full").of(layout, node("H100-SXM"))

    assert again[1] / plain[1] == pytest.approx(4 / 3)


def test_a_device_without_a_peak_for_the_precision_is_never_ranked() -> None:
    _, best, _ = hours(Job(tokens=TOKENS), 1, 4096, "none").of(Layout(), node("V100-32GB"))

    assert best == float("inf")


def changed_by(technique: str, job: Job) -> float:
    """The best hours with a technique relative to without."""
    run = Training(
        precision="bf16-mixed", optimizer=Optimizer("adamw"), micro_batch=1, seq_len=4096
    )
    work = Workload(ModelSource(find_preset(LLAMA_8B).config, preset=LLAMA_8B), run)
    tell = hours_of(job)
    assert tell is not None
    made, applied = forms(technique, work)[-1]
    at = Layout(), node("H100-SXM")
    before = tell(Variant(prepare_any(work))).of(*at)[1]
    return tell(Variant(prepare_any(made), (applied,))).of(*at)[1] / before


def test_half_the_length_halves_the_samples_time_and_leaves_that_of_tokens() -> None:
    assert changed_by("shorter-sequences", Job(tokens=TOKENS)) == pytest.approx(1, abs=0.1)
    assert changed_by("shorter-sequences", Job(samples=10**6)) == pytest.approx(0.5, abs=0.05)


def test_adapters_spare_the_weight_gradients_once_and_not_twice() -> None:
    # The backward pass of a frozen base is half as long: two passes in place of three.
    assert changed_by("lora", Job(tokens=TOKENS)) == pytest.approx(2 / 3, abs=0.03)
    # The figure of QLoRA is against training all weights.
    assert changed_by("qlora", Job(tokens=TOKENS)) == pytest.approx(1.1, abs=0.05)


def test_a_measured_speed_is_of_the_request_as_it_stands() -> None:
    job = Job(tokens=TOKENS, measured={"H100-SXM": 5000.0})

    assert changed_by("activation-checkpointing", job) == pytest.approx(1.3)
    assert changed_by("shorter-sequences", job) == pytest.approx(1)
