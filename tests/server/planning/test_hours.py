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


def connected(mbps: int | None, fabric: str, *, known: bool = True) -> NodeKind:
    """A node of eight H100 with a network."""
    return NodeKind(
        devices()["H100-SXM"],
        8,
        1.0,
        80 * 2**30,
        2**40,
        connected=known,
        network_mbps=mbps,
        fabric=fabric,
    )


SHARDED = Layout(dp=128, zero=3, sharding="fsdp2")
JOB = hours(Job(tokens=TOKENS), 2, 8192, "none")


def test_sixteen_nodes_over_a_fast_fabric_are_as_fast_as_published_and_as_one_node() -> None:
    # torchtitan: 5,605 tokens a second and GPU on 128 GPUs, 5,762 on 8.
    fast = JOB.of(SHARDED, connected(3_200_000, "infiniband"))
    alone = JOB.of(Layout(dp=8, zero=3, sharding="fsdp2"), connected(3_200_000, "infiniband"))
    measured = TOKENS / (128 * 5_605) / 3600

    assert fast[0] <= measured <= fast[2]
    assert 16 * fast[1] == pytest.approx(alone[1], rel=0.05)


def test_a_slower_network_takes_longer_and_says_what_it_waits() -> None:
    speeds = [3_200_000, 100_000, 10_000, 2_500]
    times = [JOB.of(SHARDED, connected(mbps, "ethernet"))[1] for mbps in speeds]

    assert times == sorted(times)
    assert times[-1] > 10 * times[0]


def test_a_network_that_nobody_knows_has_the_widest_interval() -> None:
    known = JOB.of(SHARDED, connected(3_200_000, "efa"))
    unstated = JOB.of(SHARDED, connected(None, "ethernet"))
    unknown = JOB.of(SHARDED, connected(None, "", known=False))

    assert unknown[2] > unstated[2] > known[2]
    assert unknown[0] <= known[1]


def test_ranks_beside_each_other_share_a_node_s_network_and_lone_ones_divide_it() -> None:
    slow = connected(25_000, "ethernet")
    together = JOB.of(Layout(dp=16, zero=3, sharding="fsdp2"), slow)[1]
    apart = JOB.of(Layout(dp=2, tp=8, zero=3, sharding="megatron"), slow)[1]

    # Of a step: eight ranks of one group move 15/16 of the weights into their node once, eight
    # groups of one rank a half of an eighth each, which is a half in all.
    assert 2 * apart == pytest.approx(16 * together * (1 / 2) / (15 / 16), rel=0.1)
