"""Estimate, Recommend, BatchRecommend and CheckFit as the typed client gets them from a server."""

from __future__ import annotations

import pytest

from running_server import example
from sizewright.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    estimate_pb2,
    plan_pb2,
    sizing_service_pb2,
)
from sizewright_catalog.catalog import Catalog
from sizewright_client import SizingClient

LLAMA3_8B_PARAMETERS = 8_030_261_248
GIB = 2**30
RESERVATION_ONLY = catalog_pb2.AVAILABILITY_RESERVATION_ONLY


def every_part(parts: list[estimate_pb2.Part]) -> list[estimate_pb2.Part]:
    return [inner for part in parts for inner in (part, *every_part(list(part.parts)))]


def test_an_estimate_explains_every_byte_of_every_phase(client: SizingClient) -> None:
    request = sizing_service_pb2.EstimateRequest(workload=example("llama3-8b-sft").workload, gpus=8)

    estimate = client.estimate(request).estimate

    assert estimate.parameter_count == LLAMA3_8B_PARAMETERS
    assert [pool.pool for pool in estimate.pools] == [estimate_pb2.POOL_GPU, estimate_pb2.POOL_HOST]
    for pool in estimate.pools:
        phases = {phase.name: phase for phase in pool.phases}
        assert pool.peak_phase in phases
        for phase in phases.values():
            assert phase.total.best_bytes == sum(part.size.best_bytes for part in phase.parts)
            parts = every_part(list(phase.parts))
            assert all(part.formula and part.source and part.confidence for part in parts)
            assert all(
                part.size.low_bytes <= part.size.best_bytes <= part.size.high_bytes
                for part in parts
            )


def test_a_gpu_has_three_readings_each_above_the_one_before(client: SizingClient) -> None:
    request = sizing_service_pb2.EstimateRequest(workload=example("bert-base-finetune").workload)

    gpu = client.estimate(request).estimate.pools[0]

    readings = [gpu.gpu.allocated, gpu.gpu.reserved, gpu.gpu.device]
    best = [reading.best_bytes for reading in readings]
    assert best == sorted(set(best))
    assert gpu.peak == gpu.gpu.device


def test_the_device_named_narrows_the_interval(client: SizingClient) -> None:
    request = sizing_service_pb2.EstimateRequest(workload=example("bert-base-finetune").workload)

    anywhere = client.estimate(request).estimate.pools[0].peak
    request.device = "H100-SXM"
    there = client.estimate(request).estimate.pools[0].peak

    assert anywhere.low_bytes <= there.low_bytes
    assert there.high_bytes < anywhere.high_bytes


def test_a_device_that_nobody_offers_may_be_named(client: SizingClient) -> None:
    request = sizing_service_pb2.EstimateRequest(workload=example("bert-base-finetune").workload)
    request.device = "H20"

    peak = client.estimate(request).estimate.pools[0].peak
    request.device = "H100-SXM"

    assert "H20" not in Catalog.load().device_names
    assert client.estimate(request).estimate.pools[0].peak == peak


def test_recommendations_come_cheapest_first_and_fit_with_their_reasons(
    client: SizingClient,
) -> None:
    answer = client.recommend(example("llama3-8b-sft"))

    plans = answer.recommendations
    assert [plan.rank for plan in plans] == list(range(1, 11))
    costs = [plan.cost_per_hour_nanos_usd for plan in plans]
    assert costs == sorted(costs)
    assert costs[0] > 0
    for plan in plans:
        assert plan.verdict in (plan_pb2.VERDICT_FITS, plan_pb2.VERDICT_TIGHT)
        assert plan.reasons
        assert plan.cost_per_hour_nanos_usd == plan.node_count * plan.offer.price.per_hour_nanos_usd
        assert plan.offer.price.source
        assert plan.offer.price.age.seconds >= 0
        assert plan.offer.provider in ("aws", "gcp", "azure")
        assert all(pool.peak.best_bytes <= pool.usable_bytes for pool in plan.pools)
    assert [plan.HasField("estimate") for plan in plans] == [True] + 9 * [False]


def test_every_offer_is_either_fitting_or_counted_under_one_constraint(
    client: SizingClient,
) -> None:
    answer = client.recommend(example("llama3-8b-sft"))

    lost = sum(rejection.offer_count for rejection in answer.rejections)
    assert lost + answer.fitting_offer_count == answer.considered_offer_count
    assert answer.considered_offer_count == client.catalog_status().offer_count
    assert answer.catalog.version == client.catalog_status().version
    assert all(rejection.message for rejection in answer.rejections)


def test_explain_sends_the_whole_estimate_with_every_plan(client: SizingClient) -> None:
    request = example("llama3-8b-sft")
    request.explain, request.max_results = True, 3

    plans = client.recommend(request).recommendations

    assert [plan.estimate.parameter_count for plan in plans] == 3 * [LLAMA3_8B_PARAMETERS]
    assert all(plan.estimate.layout == plan.layout for plan in plans)


def test_nothing_fits_is_an_answer_with_the_nearest_miss_and_its_numbers(
    client: SizingClient,
) -> None:
    request = example("llama3-8b-sft")
    request.constraints.devices[:] = ["T4"]
    request.constraints.max_nodes = 1
    request.workload.training.precision = "fp32"

    answer = client.recommend(request)

    assert not answer.recommendations
    assert answer.fitting_offer_count == 0
    miss = answer.nearest_miss
    assert miss.offer.instance_type.accelerators.device == "T4"
    assert miss.missing_bytes > 0
    short = max(pool.peak.high_bytes - pool.usable_bytes for pool in miss.pools)
    assert short == miss.missing_bytes
    assert miss.message


def test_an_owned_machine_ranks_beside_the_offers_and_first_when_it_is_paid_for(
    client: SizingClient,
) -> None:
    request = example("llama3-8b-chat")
    request.machines.add(
        name="machines/rack-1",
        vcpus=64,
        cpu_architecture="x86_64",
        host_memory=catalog_pb2.HostMemory(nominal_bytes=512 * GIB, usable_bytes=500 * GIB),
        accelerators=catalog_pb2.Accelerators(
            device="H100-SXM", count=1, driver_total_bytes=85_520_809_984
        ),
    )

    first = client.recommend(request).recommendations[0]

    assert first.machine.name == "machines/rack-1"
    assert not first.HasField("offer")
    assert first.cost_per_hour_nanos_usd == 0


def test_one_bad_request_of_a_batch_spoils_no_other(client: SizingClient) -> None:
    good, bad = example("llama3-8b-sft"), example("llama3-8b-sft")
    bad.workload.training.micro_batch = -1
    bad.constraints.providers[:] = ["awz"]
    batch = sizing_service_pb2.BatchRecommendRequest(requests=[good, bad, good])

    results = client.batch_recommend(batch).results

    assert [result.WhichOneof("result") for result in results] == ["response", "error", "response"]
    alone = client.recommend(good)
    assert results[0].response == results[2].response == alone
    assert results[1].error.code == 3
    assert [field.field for field in results[1].error.fields] == [
        "workload.training.micro_batch",
        "constraints.providers.0",
    ]


@pytest.mark.parametrize(
    "kind", ["aws/instanceTypes/g4dn.xlarge", "azure/instanceTypes/Standard_NC6s_v3"]
)
def test_a_small_model_fits_a_small_machine(kind: str, client: SizingClient) -> None:
    request = sizing_service_pb2.CheckFitRequest(
        workload=example("bert-base-finetune").workload, instance_type=f"providers/{kind}"
    )

    answer = client.check_fit(request)

    assert answer.verdict == plan_pb2.VERDICT_FITS
    assert answer.reasons
    assert {pool.pool for pool in answer.pools} == {estimate_pb2.POOL_GPU, estimate_pb2.POOL_HOST}
    assert answer.estimate.HasField("layout")


def test_what_does_not_fit_is_said_with_the_pool_that_binds(client: SizingClient) -> None:
    request = sizing_service_pb2.CheckFitRequest(
        workload=example("llama3-8b-sft").workload,
        instance_type="providers/aws/instanceTypes/p5.48xlarge",
    )
    assert client.check_fit(request).verdict == plan_pb2.VERDICT_FITS

    request.instance_type = "providers/aws/instanceTypes/g5.xlarge"
    answer = client.check_fit(request)

    assert answer.verdict == plan_pb2.VERDICT_NO
    assert any("GPU" in reason for reason in answer.reasons)


def test_headroom_asked_for_is_kept_free(client: SizingClient) -> None:
    request = sizing_service_pb2.CheckFitRequest(
        workload=example("bert-base-finetune").workload,
        instance_type="providers/aws/instanceTypes/g4dn.xlarge",
    )
    pool = client.check_fit(request).pools[0]
    # Just less than what the high estimate leaves free, and just more than what the best does.
    request.headroom = 1 - pool.peak.high_bytes / pool.usable_bytes - 1e-6
    assert client.check_fit(request).verdict == plan_pb2.VERDICT_FITS
    request.headroom = 1 - pool.peak.high_bytes / pool.usable_bytes + 1e-6
    assert client.check_fit(request).verdict == plan_pb2.VERDICT_TIGHT
    request.headroom = 1 - pool.peak.best_bytes / pool.usable_bytes + 1e-6
    assert client.check_fit(request).verdict == plan_pb2.VERDICT_NO


def test_a_price_older_than_asked_for_is_refused_or_flagged(client: SizingClient) -> None:
    request = example("llama3-8b-sft")
    request.constraints.max_price_age.FromSeconds(86_400)

    refused = client.recommend(request)
    request.constraints.stale_prices = plan_pb2.STALE_PRICES_FLAG
    flagged = client.recommend(request)

    assert not refused.recommendations
    assert {r.constraint for r in refused.rejections} >= {"price-age"}
    assert flagged.recommendations
    for plan in flagged.recommendations:
        assert "price-stale" in {warning.code for warning in plan.warnings}
    assert flagged.catalog.oldest_price_time.seconds > 0


def test_what_needs_a_reservation_is_listed_and_never_ranked(client: SizingClient) -> None:
    wanted = catalog_service_pb2.ListOffersRequest(provider="gcp", type="a4-highgpu-8g")
    offers = list(client.offers(wanted))
    request = example("llama3-8b-sft")
    request.constraints.instance_types.append("a4-highgpu-8g")

    answer = client.recommend(request)

    reserved = {o.name for o in offers if o.availability == RESERVATION_ONLY}
    assert reserved
    assert not reserved & {plan.offer.name for plan in answer.recommendations}
    assert "not-for-sale" in {rejection.constraint for rejection in answer.rejections}


def test_a_job_that_costs_more_than_the_contract_holds_costs_the_most_it_holds(
    client: SizingClient,
) -> None:
    request = example("llama3-8b-qlora")
    request.job.tokens = 9 * 10**17

    plans = client.recommend(request).recommendations

    assert plans
    assert {plan.cost_per_job_nanos_usd for plan in plans} == {2**63 - 1}
    # More hours on a plan that takes longer, all the same.
    assert min(plan.job_hours.best_hours for plan in plans) > 10**6


def test_a_stated_layout_for_more_gpus_says_how_many_nodes_have_them(client: SizingClient) -> None:
    request = sizing_service_pb2.CheckFitRequest(
        workload=example("llama3-8b-sft").workload,
        instance_type="providers/aws/instanceTypes/p5.48xlarge",
    )
    request.workload.training.parallelism.explicit.dp = 16

    answer = client.check_fit(request)

    assert answer.verdict == plan_pb2.VERDICT_NO
    assert "takes 16 GPUs, and 8 were given: 2 nodes have so many" in answer.reasons[0]
