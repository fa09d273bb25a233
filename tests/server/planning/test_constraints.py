"""Constraints one by one: who passes, who is refused for what is not known, what to relax."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from sizewright_catalog.devices import devices
from sizewright_catalog.values import GIB, Machine, Network
from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.layout import OffloadTarget
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)
from sizewright_server.planning.job import Job
from sizewright_server.planning.objectives import value_of
from sizewright_server.planning.own_machines import own_machines
from sizewright_server.planning.plan import Constraints, Objective, Plan, PlanningResult
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.planning.relaxations import LIFTED, relaxations
from sizewright_server.planning.throughput import hours_of

TODAY = date(2026, 11, 24)
GB = 10**9
DOLLAR = 10**9
LLAMA_8B, LLAMA_70B = "meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-70B"


def workload(preset: str = LLAMA_8B) -> Workload:
    run = Training(
        precision="bf16-mixed",
        optimizer=Optimizer("adamw"),
        micro_batch=1,
        seq_len=2048,
        checkpointing="full",
    )
    return Workload(ModelSource(find_preset(preset).config, preset=preset), run)


def question(constraints: Constraints, preset: str = LLAMA_8B, **more: Any) -> Question:
    return Question(prepare_any(workload(preset)), constraints, 100, TODAY, **more)


def asked(constraints: Constraints, preset: str = LLAMA_8B, **more: Any) -> PlanningResult:
    return recommend(question(constraints, preset, **more), bundled_sizing().index)


def fitting(result: PlanningResult) -> list[Plan]:
    return [plan for plan in result.plans if plan.verdict == "fits"]


def lost(result: PlanningResult) -> dict[str, int]:
    return {rejection.constraint: rejection.offer_count for rejection in result.rejections}


def test_local_disk_leaves_types_that_state_enough_and_counts_the_silent_apart() -> None:
    result = asked(Constraints(min_local_disk_bytes=4_000 * GB))

    sizes = {p.offer.instance_type.local_disk_bytes for p in fitting(result) if p.offer}
    assert sizes
    assert all(size is not None and size >= 4_000 * GB for size in sizes)
    assert lost(result)["local-disk"] > 0
    assert lost(result)["local-disk-unknown"] > 0
    (words,) = [r.message for r in result.rejections if r.constraint == "local-disk"]
    assert words.endswith("offers have less than 4,000 GB of local disk.")


@pytest.mark.parametrize("most", [0.05, 0.1, 0.2])
def test_interruptions_above_what_is_tolerated_are_refused_and_on_demand_is_not(
    most: float,
) -> None:
    result = asked(Constraints(max_interruption=most, providers=("aws", "gcp")))
    offers = [p.offer for p in fitting(result) if p.offer]

    spot = [offer for offer in offers if offer.term == "spot"]
    assert spot
    assert len(spot) < len(offers)
    for offer in spot:
        assert offer.interruption is not None
        assert offer.interruption.high_percent <= 100 * most
    # Google states no band.
    assert {offer.instance_type.provider for offer in spot} == {"aws"}
    assert lost(result)["interruption-unknown"] > 0
    assert lost(result)["interruption"] > 0


def test_no_interruption_at_all_leaves_what_is_not_spot() -> None:
    result = asked(Constraints(max_interruption=0.0))

    assert {p.offer.term for p in fitting(result) if p.offer} == {"on-demand"}


def test_a_fabric_and_a_bandwidth_are_those_that_were_asked_for() -> None:
    result = asked(Constraints(fabrics=("efa", "roce"), min_network_gbps=400, max_nodes=2))

    networks = [p.offer.instance_type.network for p in fitting(result) if p.offer]
    assert networks
    for network in networks:
        assert network is not None
        assert network.fabric in ("efa", "roce")
        assert network.mbps is not None
        assert network.mbps >= 400_000
    assert {"fabric", "fabric-unknown", "network"} <= set(lost(result))


def test_several_rented_nodes_need_a_network_that_is_known() -> None:
    result = asked(Constraints(max_nodes=32), LLAMA_70B)
    allowed = asked(Constraints(max_nodes=32, allow_unknown_network=True), LLAMA_70B)

    for plan in fitting(result):
        assert plan.offer is not None
        known = plan.offer.instance_type.network
        assert plan.node_count == 1 or (known is not None and known.fabric)
    silent = [p for p in fitting(allowed) if p.offer and not p.offer.instance_type.network]
    assert any(plan.node_count > 1 for plan in silent)
    assert all(
        "network-unknown" in {notice.code for notice in plan.notices}
        for plan in silent
        if plan.node_count > 1
    )
    assert lost(result)["network-between-nodes"] > 0
    assert "network-between-nodes" not in lost(allowed)
    (words,) = [r.message for r in result.rejections if r.constraint == "network-between-nodes"]
    assert "allow_unknown_network" in words


def test_one_node_needs_no_network() -> None:
    result = asked(Constraints(providers=("vast-ai", "runpod", "verda"), max_nodes=4), LLAMA_8B)

    assert {plan.node_count for plan in fitting(result)} <= {1}
    assert "network-between-nodes" in lost(result) or fitting(result)


def test_the_reasons_of_a_plan_of_several_nodes_state_its_network() -> None:
    result = asked(Constraints(instance_types=("p4d.24xlarge",), min_nodes=2, max_nodes=2))

    reasons = " ".join(fitting(result)[0].reasons)
    assert "Network: 400 Gbit/s over efa from each node to the others." in reasons


def test_a_plan_that_mostly_waits_for_its_network_says_so() -> None:
    slow = asked(Constraints(instance_types=("g6e.xlarge",), max_nodes=8))
    fast = asked(Constraints(instance_types=("p4d.24xlarge",), min_nodes=2, max_nodes=2))

    assert "network-binds" in {notice.code for notice in fitting(slow)[0].notices}
    assert "network-binds" not in {notice.code for notice in fitting(fast)[0].notices}


def on_nvme(offload: OffloadTarget) -> Workload:
    made = workload()
    run = made.run
    assert isinstance(run, Training)
    layout = Layout(dp=4, zero=3, sharding="deepspeed", offload=offload)
    return replace(made, run=replace(run, layout=layout))


@pytest.mark.parametrize(("offload", "per_parameter"), [("nvme", 12), ("nvme-with-parameters", 14)])
def test_what_is_offloaded_to_nvme_needs_a_disk_that_holds_it(
    offload: OffloadTarget, per_parameter: int
) -> None:
    types = ("g5.12xlarge", "p4d.24xlarge", "g5g.16xlarge", "a2-highgpu-4g", "g4dn.12xlarge")
    constraints = Constraints(instance_types=types)
    prepared = prepare_any(on_nvme(offload))
    result = recommend(Question(prepared, constraints, 100, TODAY), bundled_sizing().index)
    # Adam's fp32 weights and two states, and the bf16 weights with the parameters.
    needed = 8_030_261_248 * per_parameter

    disks = {
        p.offer.instance_type.type: p.offer.instance_type.local_disk_bytes
        for p in fitting(result)
        if p.offer
    }
    assert disks
    assert all(disk is not None and disk >= needed for disk in disks.values())
    assert "a2-highgpu-4g" not in disks, "its disk is not known"
    assert lost(result)["local-disk"] > 0


def test_without_that_offload_no_disk_is_asked_for() -> None:
    made = workload()
    assert isinstance(made.run, Training)
    layout = Layout(dp=4, zero=3, sharding="deepspeed", offload="optimizer")
    prepared = prepare_any(replace(made, run=replace(made.run, layout=layout)))
    constraints = Constraints(instance_types=("a2-highgpu-4g",))
    result = recommend(Question(prepared, constraints, 10, TODAY), bundled_sizing().index)

    assert fitting(result)
    assert "local-disk" not in lost(result)


def hours_question(constraints: Constraints, objective: Objective) -> Question:
    job = hours_of(Job(samples=2_000_000))
    return question(constraints, hours=job, objective=objective)


@pytest.mark.parametrize("objective", ["cost-per-hour", "cost-per-job", "time"])
def test_a_budget_for_the_job_holds_whatever_is_aimed_at(objective: Objective) -> None:
    index = bundled_sizing().index
    free = recommend(hours_question(Constraints(), objective), index)
    budget = 300 * DOLLAR
    limited = Constraints(max_cost_per_job_nanos_usd=budget)
    result = recommend(hours_question(limited, objective), index)

    plans = fitting(result)
    assert plans
    assert all(plan.cost_per_job_nanos_usd <= budget for plan in plans)
    dearer = [p for p in fitting(free) if p.cost_per_job_nanos_usd > budget]
    assert dearer
    assert lost(result)["budget"] > 0
    assert result.fitting_offer_count < free.fitting_offer_count
    assert all(plan.cost_per_job_nanos_usd <= budget for plan in result.pareto)


def test_both_budgets_hold_at_once() -> None:
    asked_for = Constraints(
        max_cost_per_job_nanos_usd=600 * DOLLAR, max_cost_per_hour_nanos_usd=3 * DOLLAR, max_nodes=2
    )
    result = recommend(hours_question(asked_for, "time"), bundled_sizing().index)

    for plan in fitting(result):
        assert plan.cost_per_job_nanos_usd <= 600 * DOLLAR
        assert plan.cost_per_hour_nanos_usd <= 3 * DOLLAR


def machine(**changes: Any) -> Machine:
    made = Machine(
        name="machines/box",
        vcpus=64,
        cpu_architecture="x86_64",
        host_nominal_bytes=512 * GIB,
        host_usable_bytes=480 * GIB,
        overheads=(),
        device=devices()["H100-SXM"],
        device_count=8,
        slice=1.0,
        gpu_usable_bytes=79 * GIB,
        local_disk_bytes=2_000 * GB,
        network=Network(100_000, "infiniband", "stated by its owner"),
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("constraints", "changes", "constraint"),
    [
        ({"devices": ("A100-80GB-SXM",)}, {}, "device"),
        ({"exclude_devices": ("H100-SXM",)}, {}, "device"),
        ({"cpu_architectures": ("arm64",)}, {}, "cpu-architecture"),
        ({"min_vcpus": 65}, {}, "vcpus"),
        ({"min_local_disk_bytes": 2_001 * GB}, {}, "local-disk"),
        ({"min_local_disk_bytes": 1}, {"local_disk_bytes": None}, "local-disk-unknown"),
        ({"fabrics": ("efa",)}, {}, "fabric"),
        ({"fabrics": ("efa",)}, {"network": None}, "fabric-unknown"),
        ({"min_network_gbps": 101.0}, {}, "network"),
        ({"min_network_gbps": 1.0}, {"network": Network(None, "efa", "s")}, "network-unknown"),
    ],
)
def test_what_is_asked_of_a_node_holds_for_a_machine_one_owns(
    constraints: dict[str, Any], changes: dict[str, Any], constraint: str
) -> None:
    passing, refused = own_machines([machine(**changes)], Constraints(**constraints))

    assert passing == []
    assert [(one.constraint, one.offer_count) for one in refused] == [(constraint, 1)]
    assert refused[0].message.startswith("machines/box ")


def test_a_machine_that_has_what_is_asked_passes_and_ranks_before_what_costs() -> None:
    asked_for = Constraints(
        devices=("H100-SXM",),
        min_vcpus=64,
        min_local_disk_bytes=2_000 * GB,
        min_network_gbps=100,
        fabrics=("infiniband",),
        max_interruption=0.0,
        providers=("aws",),
        max_cost_per_hour_nanos_usd=1,
    )
    result = asked(asked_for, machines=(machine(),))

    assert result.plans[0].machine is not None
    assert result.plans[0].verdict == "fits"


def test_a_refused_machine_is_counted_under_what_it_fails() -> None:
    result = asked(Constraints(min_vcpus=96), machines=(machine(),))

    assert all(plan.machine is None for plan in result.plans)
    (said,) = [r for r in result.rejections if r.message.startswith("machines/box")]
    assert said.constraint == "vcpus"
    total = sum(r.offer_count for r in result.rejections) + result.fitting_offer_count
    assert total == result.considered_offer_count


#: A constraint that makes the answer dearer, by its field, on a question where it does.
COSTLY: dict[str, Any] = {
    "providers": ("nebius",),
    "regions": ("eu-central-1",),
    "zones": ("us-east-1a",),
    "purchase": ("on-demand",),
    "devices": ("H100-SXM",),
    "exclude_devices": ("A100-80GB-PCIe",),
    "instance_types": ("p5.48xlarge",),
    "cpu_architectures": ("arm64",),
    "min_vcpus": 190,
    "headroom": 0.5,
    "max_price_age_days": 120.0,
    "list_prices_only": True,
    "min_gpus": 8,
    "max_gpus": 1,
    "min_nodes": 2,
    "min_local_disk_bytes": 8_000 * GB,
    "max_interruption": 0.0,
    "min_network_gbps": 3_000.0,
    "fabrics": ("infiniband",),
    "max_cost_per_hour_nanos_usd": 1,
    "max_cost_per_job_nanos_usd": 1,
}


#: What else is asked where the constraint alone costs nothing.
BESIDE: dict[str, dict[str, Any]] = {
    "list_prices_only": {"providers": ("aws",)},
    "min_nodes": {"instance_types": ("p5.48xlarge",), "max_nodes": 2},
}


@pytest.mark.parametrize("field", sorted(LIFTED))
def test_each_constraint_that_costs_is_named_with_what_it_costs(field: str) -> None:
    base = Constraints(**BESIDE.get(field, {}))
    job = hours_of(Job(runtime_hours=10.0)) if "per_job" in field else None
    one = question(replace(base, **{field: COSTLY[field]}), hours=job)
    index = bundled_sizing().index
    result = recommend(one, index)

    said = relaxations(one, index, result)

    free = recommend(replace(one, constraints=base), index)
    name = field.removesuffix("_nanos_usd").removesuffix("_bytes").removesuffix("_days")
    (mine,) = [notice for notice in said if f"Without '{name}'" in notice.message]
    before, after = fitting(result), fitting(free)[0]
    if before:
        assert mine.code == "constraint-costs"
        assert value_of("cost-per-hour", after) < value_of("cost-per-hour", before[0])
        assert f"${before[0].cost_per_hour_nanos_usd / DOLLAR:,.2f}" in mine.message
    else:
        assert mine.code == "constraint-prevents-fit"
    assert f"${after.cost_per_hour_nanos_usd / DOLLAR:,.2f}" in mine.message


def test_a_network_that_is_not_known_is_named_when_allowing_it_would_be_cheaper() -> None:
    one = question(Constraints(purchase=("on-demand",), max_nodes=32), LLAMA_70B)
    index = bundled_sizing().index
    allowed = replace(one, constraints=replace(one.constraints, allow_unknown_network=True))
    known, unknown = (fitting(recommend(asked, index))[0] for asked in (one, allowed))
    assert unknown.cost_per_hour_nanos_usd < known.cost_per_hour_nanos_usd

    every = relaxations(one, index, recommend(one, index))

    said = [notice for notice in every if "allow_unknown_network" in notice.message]
    assert [notice.code for notice in said] == ["constraint-costs"]


def test_nothing_is_said_where_nothing_would_be_cheaper() -> None:
    one, index = question(Constraints(min_vcpus=1)), bundled_sizing().index

    said = relaxations(one, index, recommend(one, index))

    assert not [notice for notice in said if "min_vcpus" in notice.message]


@pytest.mark.parametrize(
    ("kind", "told"),
    [("g5g.16xlarge", True), ("g4dn.12xlarge", False), ("a4x-highgpu-4g", False)],
)
def test_a_gpu_beside_arm_processors_without_a_build_is_told(kind: str, *, told: bool) -> None:
    run = Training(precision="fp16-mixed", optimizer=Optimizer("adamw"), micro_batch=1, seq_len=512)
    small = "openai-community/gpt2"
    made = Workload(ModelSource(find_preset(small).config, preset=small), run)
    index = bundled_sizing().index
    found = recommend(
        Question(prepare_any(made), Constraints(instance_types=(kind,)), 1, TODAY), index
    )

    codes = {notice.code for plan in fitting(found) for notice in plan.notices}
    assert ("no-arm64-build" in codes) == told
