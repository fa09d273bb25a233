"""What ranks send each other in a step: sums done by hand, and published speeds in the interval."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from sizewright_catalog.devices import devices
from sizewright_catalog.speeds import speeds
from sizewright_server.estimation.estimator import PreparedWorkload
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import (
    Checkpointing,
    Layout,
    ModelSource,
    Optimizer,
    Precision,
    Training,
    Workload,
)
from sizewright_server.planning.job import Job
from sizewright_server.planning.kinds import NodeKind
from sizewright_server.planning.machine_speed import MachineSpeed
from sizewright_server.planning.throughput import hours_of
from sizewright_server.planning.traffic import Traffic
from sizewright_server.planning.variants import Variant

LLAMA_8B, MIXTRAL = "meta-llama/Llama-3.1-8B", "mistralai/Mixtral-8x7B-v0.1"
TOKENS = 10**10
#: Bytes a second and GPU that the likely share of the links and the network comes to.
LINKS, NETWORK = 0.38 * 900e9, 0.8 * 50e9
FSDP = Layout(dp=16, zero=3, sharding="fsdp2")


@cache
def prepared(
    preset: str, tokens: int, checkpointing: Checkpointing, precision: Precision
) -> PreparedWorkload:
    run = Training(
        precision=precision,
        optimizer=Optimizer("adamw"),
        micro_batch=1,
        seq_len=tokens,
        checkpointing=checkpointing,
        gradient_accumulation_steps=8,
    )
    made = prepare_any(Workload(ModelSource(find_preset(preset).config, preset=preset), run))
    assert isinstance(made, PreparedWorkload)
    return made


def node(mbps: int = 3_200_000, fabric: str = "infiniband") -> NodeKind:
    """Eight H100 on a network: 50 GB/s each by default."""
    return NodeKind(
        devices()["H100-SXM"],
        8,
        1.0,
        80 * 2**30,
        2**41,
        network_mbps=mbps,
        fabric=fabric,
    )


def traffic(
    layout: Layout,
    preset: str = LLAMA_8B,
    tokens: int = 8192,
    checkpointing: Checkpointing = "none",
    compute: float = 0.0,
    attention: float = 0.0,
    at: str = "value",
) -> Traffic:
    """The exchanges of a step; nothing is hidden where computing takes no time."""
    known = prepared(preset, tokens, checkpointing, "bf16-mixed")
    run = known.workload.run
    assert isinstance(run, Training)
    machine = MachineSpeed(speeds()["H100-SXM"], node(), at)
    count = known.parameter_count
    return Traffic(known.work, run, layout, machine, count, 1.0, compute, attention)


def test_sharded_weights_are_gathered_twice_and_their_gradients_reduced_once() -> None:
    # 8.03 B parameters of 2 bytes, three times, 15/16 of them from others, eight ranks a node.
    expected = 3 * 8.03e9 * 2 * 15 / 16 / min(8 * NETWORK, LINKS)

    assert traffic(FSDP).micro_batch() == pytest.approx(expected, rel=0.01)
    assert traffic(FSDP).gradients() == 0


def test_rings_share_tokens_and_gather_no_fewer_weights() -> None:
    ring = Layout(dp=4, cp=4, zero=3, sharding="fsdp2")

    assert traffic(ring, attention=10.0).micro_batch() == pytest.approx(
        traffic(FSDP).micro_batch(), rel=0.001
    )


def test_keys_and_values_go_round_a_ring_once_forward_and_twice_backward() -> None:
    ring = Layout(dp=1, cp=8)
    # 32 layers, 8 heads of 128, keys and values, 1,024 tokens a rank of 2 bytes, 7 hops, 3 times.
    expected = 32 * 2 * 8 * 128 * 1024 * 2 * 7 * 3 / LINKS

    assert traffic(ring).micro_batch() == pytest.approx(expected, rel=0.001)
    assert traffic(ring, attention=expected / 4).micro_batch() == pytest.approx(expected * 3 / 4)
    assert traffic(ring, attention=2 * expected).micro_batch() == 0
    assert traffic(ring, attention=2 * expected, at="low").micro_batch() > expected


def test_gathered_keys_and_values_are_waited_for() -> None:
    gathered = Layout(dp=1, cp=8, context_method="all-gather")

    assert traffic(gathered, attention=10.0).micro_batch() == pytest.approx(
        traffic(Layout(dp=1, cp=8)).micro_batch()
    )


def test_the_last_rank_of_a_ring_attends_to_most_unless_the_tokens_are_dealt_out() -> None:
    ring = Layout(dp=1, cp=4)

    # Of four parts under a triangle the last has 7 of 16, the mean 4.
    assert traffic(ring, attention=4.0).unbalanced == pytest.approx(3.0)
    assert traffic(ring, attention=4.0, at="high").unbalanced == 0
    assert traffic(replace(ring, sharding="megatron"), attention=4.0).unbalanced == 0
    assert traffic(replace(ring, context_method="ulysses"), attention=4.0).unbalanced == 0


def test_ulysses_sends_less_the_more_ranks_there_are() -> None:
    def seconds(ranks: int) -> float:
        return traffic(Layout(dp=1, cp=ranks, context_method="ulysses")).micro_batch()

    # Hidden in and out beside keys and values: (2 x 4096 + 2 x 1024) x 2 bytes, both ways.
    assert seconds(8) == pytest.approx(2 * 32 * 10240 * 2 * 1024 * 7 / 8 / LINKS, rel=0.001)
    assert seconds(8) < seconds(4) < seconds(2)


def test_recomputing_repeats_the_exchanges_of_the_forward_pass() -> None:
    layout = Layout(dp=1, tp=8)
    # Four all-reduces a block of 8,192 x 4,096 x 2 bytes, each twice 7/8 of it.
    expected = 4 * 32 * 8192 * 4096 * 2 * 2 * 7 / 8 / LINKS

    assert traffic(layout).micro_batch() == pytest.approx(expected, rel=0.001)
    again = traffic(layout, checkpointing="full").micro_batch()
    assert again == pytest.approx(1.5 * expected, rel=0.001)


def test_tokens_go_to_their_experts_and_back_in_both_passes() -> None:
    layout = Layout(dp=8, ep=8, zero=3, sharding="fsdp2")
    # Two experts a token, 32 layers, 4,096 of 2 bytes, four times; the busiest rank has 1.2.
    exchange = 4 * 2 * 32 * 4096 * 2 * 8192 * 1.2 * 7 / 8 / LINKS
    # Weights: 1.6 B that all have, and an eighth of 45.1 B of experts, three times.
    weights = 3 * (46.70e9 - 45.10e9 + 45.10e9 / 8) * 2 * 7 / 8 / LINKS

    found = traffic(layout, preset=MIXTRAL).micro_batch()

    assert found == pytest.approx(exchange + weights, rel=0.01)


def test_experts_that_are_not_shared_out_are_gathered_whole_though_few_of_them_run() -> None:
    layout = Layout(dp=8, zero=3, sharding="fsdp2")

    found = traffic(layout, preset=MIXTRAL).micro_batch()

    assert found == pytest.approx(3 * 46.70e9 * 2 * 7 / 8 / LINKS, rel=0.01)


def test_experts_are_split_by_the_ranks_of_a_layer_as_well_where_they_are_shared_out() -> None:
    layout = Layout(dp=8, tp=2, ep=8, zero=3, sharding="fsdp2")
    # One gathering of half of what all have, and of a sixteenth of the experts; four a node.
    gathered = (1.60e9 / 2 + 45.10e9 / 16) * 2 * 7 / 8 / (4 * NETWORK)

    twice, once = (
        traffic(each, preset=MIXTRAL).micro_batch()
        for each in (layout, replace(layout, keep_gathered=True))
    )
    assert twice - once == pytest.approx(gathered, rel=0.01)


def test_experts_on_other_nodes_are_reached_over_one_gpu_s_share_of_the_network() -> None:
    within = traffic(Layout(dp=8, ep=8), preset=MIXTRAL).micro_batch()
    across = traffic(Layout(dp=16, ep=16), preset=MIXTRAL).micro_batch()

    # Of what is sent 8/16 goes to the other node, where 7/8 went over the links.
    assert across / within == pytest.approx((8 / 16 / NETWORK) / (7 / 8 / LINKS), rel=0.001)


def test_more_chunks_shrink_a_pipeline_s_bubble_and_a_zero_bubble_schedule_does() -> None:
    plain = Layout(dp=1, pp=8)

    assert traffic(plain).bubble == pytest.approx(1 + 7 / 8)
    assert traffic(replace(plain, virtual_stages=7)).bubble == pytest.approx(1 + 1 / 8)
    zero = replace(plain, pipeline_schedule="zero-bubble")
    assert traffic(zero).bubble == pytest.approx(1 + 7 / 24)


def test_a_hybrid_shard_gathers_inside_its_node_and_reduces_across() -> None:
    hybrid = replace(FSDP, shard_size=8)
    found = traffic(hybrid)

    assert found.micro_batch() == pytest.approx(3 * 8.03e9 * 2 * 7 / 8 / LINKS, rel=0.01)
    # A shard's gradients between two nodes: an eighth, twice a half of it, over one GPU's share.
    assert found.gradients() == pytest.approx(8.03e9 * 2 / 8 / NETWORK, rel=0.01)


def test_ranks_of_a_ring_are_replicas_as_well() -> None:
    ring = replace(FSDP, dp=4, cp=4, shard_size=8)

    assert traffic(ring).gradients() == traffic(replace(FSDP, shard_size=8)).gradients() > 0


@pytest.mark.parametrize(
    ("dp", "cp", "tokens", "tokens_per_second_per_gpu"),
    # torchtitan docs/performance.md, table 2: float8, compiled, every block recomputed, 8 H100.
    [(8, 1, 32_768, 3_890), (4, 2, 65_536, 2_540), (2, 4, 131_072, 1_071), (1, 8, 262_144, 548)],
)
def test_the_speeds_torchtitan_published_of_rings_lie_within_the_interval(
    dp: int, cp: int, tokens: int, tokens_per_second_per_gpu: int
) -> None:
    work = prepared(LLAMA_8B, tokens, "full", "fp8")
    tell = hours_of(Job(tokens=TOKENS))
    assert tell is not None
    layout = Layout(dp=dp, cp=cp, zero=3, sharding="fsdp2")

    low, _, high = tell(Variant(work)).of(layout, node())

    assert low < TOKENS / (8 * tokens_per_second_per_gpu) / 3600 < high
