"""Serving engines as clients see them: what they take, what they hold, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from running_server import example
from sizewright.v1 import estimate_pb2, plan_pb2, sizing_service_pb2, workload_pb2
from sizewright_client import SizingClient
from sizewright_client.errors import InvalidRequestError

GIB = 2**30


def served(preset: str = "meta-llama/Meta-Llama-3-8B", **inference: Any) -> workload_pb2.Workload:
    """A workload of vLLM with some fields of `inference` as said."""
    usual = {"engine": "vllm", "weight_dtype": "bf16", "batch": 8, "input_tokens": 2048}
    document = {"model": {"preset": preset}, "inference": {**usual, **inference}}
    return ParseDict(document, workload_pb2.Workload())


def estimate(
    client: SizingClient, workload: workload_pb2.Workload, **request: Any
) -> estimate_pb2.MemoryEstimate:
    asked = sizing_service_pb2.EstimateRequest(workload=workload, **request)
    return client.estimate(asked).estimate


def parts_of(phase: estimate_pb2.Phase) -> dict[str, estimate_pb2.Part]:
    return {part.name: part for part in phase.parts}


def refusals(client: SizingClient, workload: workload_pb2.Workload) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as refused:
        estimate(client, workload)
    return {each.field: each.description for each in refused.value.violations}


def test_llama_70b_over_8_gpus_takes_16_43_gib_of_weights_and_5_of_cache(
    client: SizingClient,
) -> None:
    found = estimate(client, example("llama3-70b-vllm").workload)

    parts = parts_of(found.pools[0].phases[-1])
    assert round(parts["weights"].size.best_bytes / GIB, 2) == 16.43
    assert parts["kv-cache"].size.best_bytes == 5 * GIB
    assert "70,553,706,496 parameters in bf16 over 8" in parts["weights"].numbers
    assert "8,192 blocks x 655,360 B" in parts["kv-cache"].numbers
    assert {part.name for part in parts["weights"].parts} >= {"layers", "embedding", "head"}


def test_every_phase_adds_up_and_the_highest_is_the_peak(client: SizingClient) -> None:
    for engine in ("vllm", "sglang", "transformers"):
        found = estimate(
            client, served(engine=engine, weight_dtype="awq-int4"), device="A100-80GB-SXM"
        )
        for pool in found.pools:
            phases = {phase.name: phase for phase in pool.phases}
            for phase in phases.values():
                assert phase.total.best_bytes == sum(p.size.best_bytes for p in phase.parts)
                assert all(p.formula and p.source and p.confidence for p in phase.parts)
            peak = phases[pool.peak_phase].total.best_bytes
            assert peak == max(phase.total.best_bytes for phase in phases.values())
            assert pool.peak.low_bytes <= pool.peak.best_bytes <= pool.peak.high_bytes


def test_on_a_known_gpu_the_engine_says_what_its_pool_holds(client: SizingClient) -> None:
    workload = served(
        "meta-llama/Llama-3.1-8B",
        serving={"engine_version": "0.19.0", "gpu_memory_utilization": 0.95},
    )

    view = estimate(client, workload, device="H100-SXM").serving

    # 476,016 tokens in 29,751 blocks of a vLLM 0.19 log on H100 at 0.95.
    assert view.kv_tokens.best == pytest.approx(476_016, rel=2e-3)
    assert view.kv_blocks.best * view.block_tokens == view.kv_tokens.best
    assert view.concurrent_sequences.best == view.kv_blocks.best // (2048 // 16)
    assert 58_000 < view.longest_sequence_tokens.best < 60_000
    assert {part.name for part in view.breakdown} == {
        "weights",
        "activations",
        "non-torch",
        "cuda-graphs",
        "kv-cache",
    }


def test_without_a_gpu_only_the_need_is_known_and_a_warning_says_so(client: SizingClient) -> None:
    found = estimate(client, served())

    assert not found.serving.HasField("kv_tokens")
    assert found.serving.needed_cache.best_bytes == 8 * 2048 * 131_072
    assert "device-not-stated" in {warning.code for warning in found.warnings}


def test_a_version_newer_than_the_rules_says_so_and_widens(client: SizingClient) -> None:
    known = estimate(client, served(serving={"engine_version": "0.33.0"}), device="H100-SXM")
    newer = estimate(client, served(serving={"engine_version": "0.40.1"}), device="H100-SXM")

    assert "engine-version-newer" in {warning.code for warning in newer.warnings}
    assert "engine-version-newer" not in {warning.code for warning in known.warnings}
    assert newer.serving.kv_tokens.low < known.serving.kv_tokens.low
    assert newer.serving.kv_tokens.high > known.serving.kv_tokens.high


def test_more_sequences_or_longer_ones_never_need_less(client: SizingClient) -> None:
    needs = [
        estimate(client, served(batch=batch, input_tokens=length)).serving.least_gpu.best_bytes
        for batch, length in ((1, 512), (8, 512), (8, 4096), (64, 4096))
    ]

    assert needs == sorted(needs)


def test_a_shared_prefix_is_held_once(client: SizingClient) -> None:
    apart = estimate(client, served()).serving.needed_cache.best_bytes
    shared = estimate(client, served(serving={"shared_prefix_tokens": 1024})).serving

    assert shared.needed_cache.best_bytes == apart - 7 * 1024 * 131_072


def test_a_draft_model_takes_weights_and_cache(client: SizingClient) -> None:
    alone = estimate(client, served("meta-llama/Llama-3.1-70B")).serving
    draft = {"draft": {"preset": "meta-llama/Llama-3.2-1B"}, "tokens": 4}
    drafted = estimate(
        client, served("meta-llama/Llama-3.1-70B", serving={"speculative": draft})
    ).serving

    more = drafted.breakdown[0].size.best_bytes - alone.breakdown[0].size.best_bytes
    assert more == pytest.approx(2 * 1_235_814_400, rel=0.02)
    assert drafted.bytes_per_token == alone.bytes_per_token + 16 * 8 * 2 * 64 * 2


def test_adapters_take_their_slots(client: SizingClient) -> None:
    alone = estimate(client, served()).serving.breakdown[0].size.best_bytes
    slots = {"adapters": {"count": 4, "rank": 16}}
    found = estimate(client, served(serving=slots)).serving.breakdown[0]

    assert "adapters" in {part.name for part in found.parts}
    # 41.9 million parameters of rank 16 on every linear layer of Llama-3-8B, in bf16, and vLLM's
    # tables of 128,256 words at both ends.
    assert found.size.best_bytes - alone == 4 * 2 * (41_943_040 + 2 * 16 * (128_256 + 4096))


def test_the_smallest_machine_for_a_wanted_concurrency_is_found(client: SizingClient) -> None:
    def cheapest(batch: int) -> plan_pb2.Recommendation:
        workload = served(weight_dtype="fp8", batch=batch, input_tokens=8192)
        request = sizing_service_pb2.RecommendRequest(workload=workload, max_results=1)
        request.constraints.providers.append("aws")
        return client.recommend(request).recommendations[0]

    few, many = cheapest(1), cheapest(256)

    assert few.cost_per_hour_nanos_usd < many.cost_per_hour_nanos_usd
    for plan in (few, many):
        gpu = plan.pools[0]
        assert gpu.peak.high_bytes <= gpu.usable_bytes
        assert plan.estimate.pools[0].peak.best_bytes == gpu.peak.best_bytes


@pytest.mark.parametrize("engine", ["vllm", "sglang", "transformers"])
def test_a_check_and_its_estimate_say_the_same_peak(client: SizingClient, engine: str) -> None:
    request = sizing_service_pb2.CheckFitRequest(
        workload=served(
            engine=engine, weight_dtype="awq-int4", parallelism={"explicit": {"tp": 4}}
        ),
        instance_type="providers/aws/instanceTypes/g5.12xlarge",
    )

    response = client.check_fit(request)

    peaks = {pool.pool: pool.peak.best_bytes for pool in response.pools}
    assert peaks == {pool.pool: pool.peak.best_bytes for pool in response.estimate.pools}


def test_a_check_says_the_largest_batch_and_length_that_fit(client: SizingClient) -> None:
    request = sizing_service_pb2.CheckFitRequest(
        workload=served(new_tokens=128),
        instance_type="providers/aws/instanceTypes/g6e.xlarge",
        advise=True,
    )

    response = client.check_fit(request)

    limits = {limit.field: limit.largest for limit in response.limits}
    assert response.verdict == plan_pb2.VERDICT_FITS
    assert limits["workload.inference.batch"] > 8
    assert limits["workload.inference.input_tokens"] > 2048
    assert response.estimate.serving.kv_tokens.best > 8 * 2176


def test_swap_and_offload_spaces_are_in_host_memory(client: SizingClient) -> None:
    old = {"engine_version": "0.6.3", "engine_generation": "v0"}
    kept = estimate(client, served(serving=old)).pools[1]
    none = estimate(client, served(serving={**old, "swap_space_bytes": "0"})).pools[1]
    moved = estimate(client, served(serving={"cpu_offload_bytes": str(8 * GIB)})).pools[1]

    assert parts_of(kept.phases[-1])["swap-space"].size.best_bytes == 4 * GIB
    assert "swap-space" not in parts_of(none.phases[-1])
    assert parts_of(moved.phases[-1])["cpu-offload"].size.best_bytes == 8 * GIB


def test_a_model_the_tape_does_not_lower_is_served_by_transformers(client: SizingClient) -> None:
    found = estimate(client, served("google/gemma-3-4b-it", engine="transformers", batch=1))

    assert found.parameter_count == 4_300_079_472
    assert found.serving.engine == "transformers"


def test_everything_wrong_with_serving_is_named_at_once(client: SizingClient) -> None:
    wrong = refusals(
        client,
        served(
            weight_dtype="int5",
            kv_dtype="fp3",
            batch=0,
            cache="static",
            serving={
                "engine_version": "latest",
                "gpu_memory_utilization": 1.5,
                "block_size": -1,
                "adapters": {"count": 0},
            },
        ),
    )

    assert set(wrong) == {
        "workload.inference.weight_dtype",
        "workload.inference.kv_dtype",
        "workload.inference.batch",
        "workload.inference.cache",
        "workload.inference.serving.engine_version",
        "workload.inference.serving.gpu_memory_utilization",
        "workload.inference.serving.block_size",
        "workload.inference.serving.adapters",
    }


@pytest.mark.parametrize("engine", ["llama-cpp", "tensorrt-llm", "diffusers", "faster-whisper"])
def test_engines_of_other_kinds_are_refused_by_name(client: SizingClient, engine: str) -> None:
    wrong = refusals(client, served(engine=engine))

    assert f"'{engine}' is not built yet" in wrong["workload.inference.engine"]


def test_a_tensor_parallel_size_the_heads_do_not_take_is_refused(client: SizingClient) -> None:
    wrong = refusals(client, served(parallelism={"explicit": {"tp": 3}}))

    assert "possible: 1, 2, 4, 8, 16, 32" in wrong["workload.inference.parallelism.explicit.tp"]


def test_settings_of_one_engine_are_refused_for_another(client: SizingClient) -> None:
    wrong = refusals(client, served(engine="transformers", serving={"max_num_seqs": 8}))

    assert "setting of vllm and sglang" in wrong["workload.inference.serving.max_num_seqs"]


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"engine": "vllm"}, "vllm has kernels of its own"),
        ({"engine": "transformers", "weight_dtype": "bnb-nf4"}, "beside plain types"),
    ],
)
def test_how_recurrent_layers_run_is_refused_where_it_is_not_read(
    client: SizingClient, run: dict[str, Any], words: str
) -> None:
    wrong = refusals(client, served("tiiuae/falcon-mamba-7b", recurrence="eager", **run))

    assert words in wrong["workload.inference.recurrence"]


def test_a_length_beyond_the_engines_own_is_refused(client: SizingClient) -> None:
    wrong = refusals(client, served(serving={"max_model_len": 1024}))

    assert (
        "less than input_tokens + new_tokens" in (wrong["workload.inference.serving.max_model_len"])
    )


def test_files_win_over_shapes_and_a_difference_is_said(client: SizingClient) -> None:
    config = (
        '{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "vocab_size": 1024, '
        '"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}'
    )
    workload = served(batch=1, input_tokens=16)
    files = workload.model.safetensors
    files.hf_config.json = config
    files.tensors.add(name="all", dtype="bf16", shape=[2**29], stored_bytes=2**30)

    found = estimate(client, workload)

    weights = found.serving.breakdown[0].size.best_bytes
    assert weights == pytest.approx(2**30, rel=1e-3)
    assert "stored-weights-differ" in {warning.code for warning in found.warnings}
