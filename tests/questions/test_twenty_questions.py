"""Twenty real questions, answered as somebody who has run such jobs would answer them.

The answers are said in machine classes, layouts, verdicts and sums that can be done by hand, so
that a new price of one region changes none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sizewright.v1 import catalog_pb2, estimate_pb2, plan_pb2, sizing_service_pb2
from sizewright_client import SizingClient, load_request

QUESTIONS = Path(__file__).parents[2] / "examples" / "questions"
GIB = 2**30
GPU, HOST = estimate_pb2.POOL_GPU, estimate_pb2.POOL_HOST
FITS, TIGHT, NO = plan_pb2.VERDICT_FITS, plan_pb2.VERDICT_TIGHT, plan_pb2.VERDICT_NO
LLAMA_8B, LLAMA_70B, LLAMA_405B = 8.03e9, 70.6e9, 405.9e9


@pytest.fixture(scope="module")
def engine() -> Iterator[SizingClient]:
    """The engine of this process."""
    with SizingClient.embedded() as client:
        yield client


@cache
def question(name: str) -> sizing_service_pb2.RecommendRequest:
    """A request file of the questions."""
    return load_request(str(QUESTIONS / f"{name}.yaml"))


def asked(name: str, engine: SizingClient) -> sizing_service_pb2.RecommendResponse:
    """What is recommended."""
    return engine.recommend(question(name))


def best(name: str, engine: SizingClient) -> plan_pb2.Recommendation:
    """The first plan, which fits for certain."""
    plan = asked(name, engine).recommendations[0]
    assert plan.verdict == FITS
    return plan


def checked(
    name: str, machine: str, engine: SizingClient, nodes: int = 1
) -> sizing_service_pb2.CheckFitResponse:
    """Whether it fits a machine of the catalog, and what would still fit."""
    return engine.check_fit(
        sizing_service_pb2.CheckFitRequest(
            workload=question(name).workload,
            instance_type=machine,
            node_count=nodes,
            advise=True,
        )
    )


def gib(pools: plan_pb2.Recommendation, pool: estimate_pb2.Pool.ValueType) -> float:
    """Best peak of a pool, in GiB."""
    return next(one.peak.best_bytes for one in pools.pools if one.pool == pool) / GIB


def part_gib(plan: plan_pb2.Recommendation, name: str) -> float:
    """Largest size of a part of the GPU's memory over the phases, in GiB."""
    pool = next(one for one in plan.estimate.pools if one.pool == GPU)
    sizes = [part.size.best_bytes for phase in pool.phases for part in phase.parts]
    named = [part.name for phase in pool.phases for part in phase.parts]
    return max(size for size, one in zip(sizes, named, strict=True) if one == name) / GIB


def largest(check: sizing_service_pb2.CheckFitResponse, field: str) -> int:
    """The largest value of a field that still fits."""
    return next(one.largest for one in check.limits if one.field.endswith(field))


def binds(plan: plan_pb2.Recommendation) -> str:
    """The sentence that says what binds."""
    return next(reason for reason in plan.reasons if "binds" in reason)


def gpu_gib(plan: plan_pb2.Recommendation) -> float:
    """What of a GPU of the plan is usable."""
    return next(one.usable_bytes for one in plan.pools if one.pool == GPU) / GIB


# -- training ------------------------------------------------------------------------------------


def test_a_full_fine_tune_of_8b_shards_sixteen_bytes_a_parameter_over_gpus_of_one_node(
    engine: SizingClient,
) -> None:
    plan = best("full-fine-tune-8b", engine)

    # Weights and gradients in 16 bits, master copy and both moments in 32: 16 bytes each.
    assert plan.node_count == 1
    assert plan.layout.gpus >= 2
    assert plan.layout.zero >= 1
    assert plan.layout.gpus * gib(plan, GPU) > 16 * LLAMA_8B / GIB
    assert binds(plan).startswith("GPU memory binds")


def test_a_single_80_gb_gpu_does_not_take_a_full_fine_tune_of_8b(engine: SizingClient) -> None:
    check = checked("full-fine-tune-8b", "providers/gcp/instanceTypes/a2-ultragpu-1g", engine)

    assert check.verdict == NO
    assert largest(check, "micro_batch") == 0
    named = {one.name for advice in check.advice for one in advice.techniques}
    assert named  # The smallest change that makes it fit is said.


def test_405b_is_pretrained_on_nodes_of_eight_over_a_fast_network(engine: SizingClient) -> None:
    answer = asked("pretrain-405b", engine)

    assert answer.recommendations
    for plan in answer.recommendations:
        kind = plan.offer.instance_type
        assert kind.accelerators.count == 8
        assert kind.network.bandwidth_gbps >= 400
        assert plan.layout.tp <= 8
        assert plan.layout.gpus >= 512
    first = answer.recommendations[0]
    # States alone: 16 bytes of 405.9e9 parameters, over all GPUs.
    assert gib(first, GPU) * first.layout.gpus > 16 * LLAMA_405B / GIB
    assert any(reason.startswith("Network:") for reason in first.reasons)
    assert first.job_hours.low_hours < first.job_hours.best_hours < first.job_hours.high_hours


def test_a_stated_megatron_layout_of_405b_fits_its_72_nodes_and_says_what_it_needs(
    engine: SizingClient,
) -> None:
    check = checked("pretrain-405b-megatron", "providers/aws/instanceTypes/p5.48xlarge", engine, 72)
    alone = asked("pretrain-405b-megatron", engine)

    assert check.verdict == FITS
    assert check.estimate.layout.gpus == 576
    assert not alone.recommendations
    assert any("max_nodes: 72" in one.message for one in alone.warnings)
    lost = {one.constraint: one.message for one in alone.rejections}
    assert "576 GPUs of the stated layout" in lost["layout"]


def test_a_full_fine_tune_of_70b_takes_more_than_one_node_of_80_gb_gpus(
    engine: SizingClient,
) -> None:
    one = checked("full-fine-tune-70b-zero3", "providers/aws/instanceTypes/p5.48xlarge", engine)
    four = checked("full-fine-tune-70b-zero3", "providers/aws/instanceTypes/p5.48xlarge", engine, 4)
    plan = best("full-fine-tune-70b-zero3", engine)

    # 18 bytes over 8 GPUs are 148 GiB each, over 32 of them 37 GiB.
    assert one.verdict == NO
    assert four.verdict == FITS
    assert plan.layout.zero == 3
    assert plan.layout.gpus * gpu_gib(plan) > 16 * LLAMA_70B / GIB


def test_dpo_without_an_adapter_holds_a_second_model(engine: SizingClient) -> None:
    plan = best("dpo-8b", engine)

    # 15 GiB more than a fine-tune: the reference model in 16 bits, or twice that in 32.
    assert part_gib(plan, "reference-model") * plan.layout.gpus > 0.9 * 2 * LLAMA_8B / GIB
    assert plan.layout.pp == 1  # transformers' Trainer runs no pipeline.


def test_qlora_of_7b_fits_a_laptop_with_8_gb(engine: SizingClient) -> None:
    plan = best("qlora-7b-laptop", engine)

    # Half a byte a parameter and its scales, beside 16-bit embeddings: 4 GiB.
    assert 3.5 < part_gib(plan, "weights") < 4.5
    assert gib(plan, GPU) < 7
    laptops = engine.check_fit(
        sizing_service_pb2.CheckFitRequest(
            workload=question("qlora-7b-laptop").workload,
            machine=owned("laptop-rtx-4070", engine),
            advise=True,
        )
    )
    assert laptops.verdict == FITS
    assert largest(laptops, "seq_len") >= 2048
    assert largest(laptops, "micro_batch") >= 2


def owned(name: str, engine: SizingClient) -> catalog_pb2.Machine:
    """A machine of the library of those that people own."""
    models = engine.machine_models(name).models
    return next(model.machine for model in models if model.name == name)


def test_lora_on_mixtral_needs_a_gpu_that_holds_all_experts_in_16_bits(
    engine: SizingClient,
) -> None:
    plan = best("mixtral-lora", engine)
    small = checked("mixtral-lora", "providers/gcp/instanceTypes/a2-ultragpu-1g", engine)

    assert part_gib(plan, "weights") * plan.layout.gpus > 2 * 46.7e9 / GIB
    assert plan.layout.gpus == 1
    assert gpu_gib(plan) > 90
    assert small.verdict == NO
    # transformers 5 keeps a block's experts in one tensor, which bitsandbytes leaves in 16 bits.
    assert "qlora" not in {one.name for advice in small.advice for one in advice.techniques}


def test_lora_of_14b_that_one_24_gb_gpu_does_not_hold_fits_it_over_weights_of_4_bits(
    engine: SizingClient,
) -> None:
    check = engine.check_fit(
        sizing_service_pb2.CheckFitRequest(
            workload=question("owned-4090s").workload,
            machine=owned("workstation-rtx-4090", engine),
            advise=True,
        )
    )

    assert check.verdict == NO
    assert "qlora" in {one.name for advice in check.advice for one in advice.techniques}


def test_a_full_fine_tune_of_whisper_fits_one_48_gb_gpu(engine: SizingClient) -> None:
    plan = best("whisper-fine-tune", engine)

    assert plan.layout.gpus == 1
    # fp32 weights, gradients and both moments: 16 bytes of 1.54e9 parameters.
    assert gib(plan, GPU) > 16 * 1.54e9 / GIB
    assert gpu_gib(plan) < 50


def test_bert_base_is_fine_tuned_on_the_smallest_gpu_there_is(engine: SizingClient) -> None:
    plan = best("bert-base-classifier", engine)

    assert plan.layout.gpus == 1
    assert gib(plan, GPU) < 5
    assert gpu_gib(plan) < 25
    assert plan.cost_per_hour_nanos_usd < 10**9


def test_vit_large_trains_on_one_24_gb_spot_gpu_and_is_told_that_spot_is_taken_away(
    engine: SizingClient,
) -> None:
    plan = best("vit-large-spot", engine)

    assert plan.layout.gpus == 1
    assert gpu_gib(plan) < 50
    assert "spot" in {one.code for one in plan.warnings}


def test_a_day_of_lora_is_bought_by_the_job_not_by_the_hour(engine: SizingClient) -> None:
    answer = asked("lora-8b-in-a-day", engine)
    plan = answer.recommendations[0]

    costs = [one.cost_per_job_nanos_usd for one in answer.recommendations]
    hours = [one.cost_per_hour_nanos_usd for one in answer.recommendations]
    assert plan.job_hours.best_hours < 24
    assert plan.cost_per_hour_nanos_usd <= 10 * 10**9
    assert costs == sorted(costs)
    assert hours != sorted(hours)


def test_owned_gpus_rank_among_the_offers_at_their_own_cost(engine: SizingClient) -> None:
    answer = asked("owned-4090s", engine)

    own = [one for one in answer.recommendations if one.HasField("machine")]
    assert own
    assert own[0].verdict == FITS
    assert own[0].layout.gpus > 1  # 28 GiB of weights are more than a card of 24 GB holds.
    cheaper = [one for one in answer.recommendations if one.rank < own[0].rank]
    assert all(one.cost_per_hour_nanos_usd <= 600_000_000 for one in cheaper)


# -- serving -------------------------------------------------------------------------------------


def test_64_users_of_70b_need_a_node_whose_gpus_share_weights_and_cache(
    engine: SizingClient,
) -> None:
    plan = best("serve-70b-64-users", engine)

    ranks = plan.layout.tp * plan.layout.pp
    # 80 layers x 8 heads x 128 x 2 x 2 bytes a token, 64 x 8,192 tokens: 160 GiB.
    assert part_gib(plan, "kv-cache") * ranks == pytest.approx(160, rel=0.02)
    assert part_gib(plan, "weights") * ranks == pytest.approx(2 * LLAMA_70B / GIB, rel=0.02)
    assert plan.node_count == 1
    assert plan.layout.tp >= 4


def test_deepseek_v3_is_served_by_one_node_of_8_h200_and_not_of_8_h100(
    engine: SizingClient,
) -> None:
    plan = best("serve-deepseek-v3", engine)
    small = checked("serve-deepseek-v3", "providers/aws/instanceTypes/p5.48xlarge", engine)
    large = checked("serve-deepseek-v3", "providers/aws/instanceTypes/p5en.48xlarge", engine)

    assert plan.node_count == 1
    assert plan.layout.tp == 8
    assert gpu_gib(plan) > 135
    assert small.verdict == NO
    assert large.verdict == FITS
    assert largest(large, "inference.batch") >= 32


def test_8b_with_32k_of_context_for_four_fits_one_48_gb_gpu_not_one_of_24(
    engine: SizingClient,
) -> None:
    plan = best("serve-8b-32k-one-gpu", engine)
    small = checked("serve-8b-32k-one-gpu", "providers/aws/instanceTypes/g6.xlarge", engine)

    # 32 layers x 8 heads x 128 x 2 x 2 bytes, 4 x 32,768 tokens: 16 GiB.
    assert part_gib(plan, "kv-cache") == pytest.approx(16, rel=0.02)
    assert 30 < gib(plan, GPU) < 45
    assert plan.cost_per_hour_nanos_usd < 10**9
    assert small.verdict == NO
    assert small.advice
    lost = {one.constraint: one.message for one in asked("serve-8b-32k-one-gpu", engine).rejections}
    assert "have more than 1 GPUs on a node" in lost["gpu-count"]


def test_embeddings_need_little_of_a_small_gpu(engine: SizingClient) -> None:
    plan = best("embeddings", engine)

    assert gib(plan, GPU) < 5
    assert plan.layout.gpus == 1
    assert plan.cost_per_hour_nanos_usd < 500_000_000


# -- tables --------------------------------------------------------------------------------------


def test_reading_a_200_gb_csv_takes_text_and_columns_twice(engine: SizingClient) -> None:
    plan = best("csv-200gb-xgboost", engine)

    # 186 GiB of text, and 250e6 x 100 x 4 bytes in chunks and joined.
    text, columns = 200e9 / GIB, 250e6 * 100 * 4 / GIB
    assert gib(plan, HOST) == pytest.approx(text + 2 * columns, rel=0.03)
    assert not any(pool.pool == GPU for pool in plan.pools)
    assert plan.estimate.pools[0].peak_phase == "read-file"
    assert "reading-multiplies" in {one.code for one in plan.warnings}


def test_trees_take_more_of_a_forest_than_its_table(engine: SizingClient) -> None:
    plan = best("random-forest-10m", engine)

    table = 10e6 * 50 * 4 / GIB
    assert gib(plan, HOST) > 8 * table
    assert plan.estimate.pools[0].peak_phase == "fit"
    assert "copies-of-the-table" in {one.code for one in plan.warnings}


def test_a_fit_of_16_threads_on_fewer_cores_is_told_how_much_longer_it_takes(
    engine: SizingClient,
) -> None:
    plan = best("random-forest-10m", engine)
    wide = sizing_service_pb2.RecommendRequest()
    wide.CopyFrom(question("random-forest-10m"))
    wide.constraints.min_vcpus = 16

    few = [one.message for one in plan.warnings if one.code == "fewer-cores"]
    first = engine.recommend(wide).recommendations[0]

    assert plan.offer.instance_type.vcpus < 16
    assert "'min_vcpus: 16'" in few[0]
    assert first.offer.instance_type.vcpus >= 16
    assert "fewer-cores" not in {one.code for one in first.warnings}


def test_lightgbm_holds_the_table_and_a_byte_for_each_of_its_values(engine: SizingClient) -> None:
    plan = best("lightgbm-100m", engine)

    table, bins = 100e6 * 40 * 4 / GIB, 100e6 * 40 / GIB
    assert table + bins < gib(plan, HOST) < 1.3 * (table + bins)
    assert plan.cost_per_hour_nanos_usd < 10**9


def test_pandas_peaks_as_it_reads(engine: SizingClient) -> None:
    plan = best("pandas-preprocessing", engine)

    assert plan.estimate.pools[0].peak_phase == "read-file"
    assert gib(plan, HOST) > 4 * 50e6 * 80 * 8 / GIB
    assert {"reading-multiplies", "preprocessing-multiplies"} <= {w.code for w in plan.warnings}


# -- what every answer says ----------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(QUESTIONS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_reason_can_be_read_aloud(file: Path, engine: SizingClient) -> None:
    answer = asked(file.stem, engine)

    sentences = [rejection.message for rejection in answer.rejections]
    misses = [one.message for one in answer.warnings if one.code == "cheaper-tight"]
    sentences += [one.message for one in answer.warnings if one.code != "cheaper-tight"]
    if answer.HasField("nearest_miss"):
        misses.append(answer.nearest_miss.message)
    for plan in answer.recommendations:
        sentences += [*plan.reasons, *(warning.message for warning in plan.warnings)]
        fuller = max(pool.peak.high_bytes / pool.usable_bytes for pool in plan.pools)
        words = "memory binds, at" if fuller >= 0.5 else "and does not bind"
        assert any(words in reason for reason in plan.reasons)
    for sentence in sentences:
        code = "_" in sentence.split()[0]  # A function's own name, such as train_test_split.
        assert sentence[0].isupper() or sentence[0].isdigit() or code
    for sentence in [*sentences, *misses]:
        assert sentence.endswith((".", ")."))
        assert "  " not in sentence
        assert "None" not in sentence
        assert "nan" not in sentence.split()
        assert "$0.0000" not in sentence


@pytest.mark.parametrize("file", sorted(QUESTIONS.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_plan_that_fits_has_room_for_its_high_estimate(file: Path, engine: SizingClient) -> None:
    for plan in asked(file.stem, engine).recommendations:
        if plan.verdict == FITS:
            assert all(pool.peak.high_bytes <= pool.usable_bytes for pool in plan.pools)
