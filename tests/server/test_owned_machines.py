"""Owned machines in a question: by model or described, with their cost, ranked with the offers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from running_server import example
from sizewright.v1 import catalog_pb2 as pb
from sizewright.v1 import plan_pb2, sizing_service_pb2
from sizewright_catalog.owned.library import MachineModel, models
from sizewright_client import SizingClient
from sizewright_client.errors import InvalidRequestError
from sizewright_server.estimation.problems import Violation
from sizewright_server.wire.owned_machines import read_machine

GIB = 2**30
DOLLAR = 10**9


@pytest.fixture
def client() -> SizingClient:
    return SizingClient.embedded()


Rank = Callable[..., sizing_service_pb2.RecommendResponse]


@pytest.fixture
def rank(client: SizingClient) -> Rank:
    """Ranks the example fine-tune over machines and AWS's offers of one region."""

    def ask(*machines: pb.Machine) -> sizing_service_pb2.RecommendResponse:
        request = example("llama3-8b-sft")
        request.constraints.providers.append("aws")
        request.constraints.regions.append("us-east-1")
        request.constraints.max_nodes = 1
        request.max_results = 50
        request.machines.extend(machines)
        return client.recommend(request)

    return ask


def wrong_fields(client: SizingClient, machine: pb.Machine) -> dict[str, str]:
    request = example("llama3-8b-sft")
    request.machines.append(machine)
    with pytest.raises(InvalidRequestError) as wrong:
        client.recommend(request)
    return {violation.field: violation.description for violation in wrong.value.violations}


def test_a_machine_by_model_ranks_in_the_list_of_offers(rank: Rank) -> None:
    lab = pb.Machine(name="machines/lab", model="dgx-h100", cost_per_hour_nanos_usd=30 * DOLLAR)
    plans = rank(lab).recommendations
    costs = [plan.cost_per_hour_nanos_usd for plan in plans]
    (place,) = [i for i, plan in enumerate(plans) if plan.machine.name == "machines/lab"]
    assert costs == sorted(costs)
    assert costs[place] == 30 * DOLLAR
    assert plans[place].machine.accelerators.device == "H100-SXM"
    assert plans[place].machine.accelerators.driver_total_bytes == 81_559 * 2**20
    # What CUDA hands out of it.
    assert plans[place].machine.accelerators.usable_bytes == int(79.1 * 1024) * 2**20
    assert any(plan.offer.name for plan in plans[:place])
    assert any(plan.offer.name for plan in plans[place + 1 :])


def test_the_cost_of_an_hour_is_computed_from_what_owning_costs(rank: Rank) -> None:
    machine = pb.Machine(name="machines/lab", model="dgx-h100")
    machine.ownership.purchase_price_nanos_usd = 350_640 * DOLLAR
    machine.ownership.lifetime_years = 4
    machine.ownership.electricity_per_kwh_nanos_usd = DOLLAR // 10
    (plan,) = [p for p in rank(machine).recommendations if p.machine.name == "machines/lab"]
    # 87,660 a year over 8,766 hours, and the model's 10.2 kW.
    assert plan.cost_per_hour_nanos_usd == 10 * DOLLAR + 1_020_000_000
    assert plan.machine.ownership.power_watts == 10_200


def test_what_the_owner_says_holds_against_the_model(rank: Rank) -> None:
    machine = pb.Machine(name="machines/mine", model="hgx-h100-4", count=2)
    machine.host_memory.nominal_bytes = 512 * GIB
    machine.accelerators.count = 8
    response = rank(machine)
    found = [p.machine for p in response.recommendations if p.machine.name == "machines/mine"]
    assert found
    assert found[0].accelerators.count == 8
    assert found[0].accelerators.device == "H100-SXM"
    assert 490 * GIB < found[0].host_memory.usable_bytes < 512 * GIB


def test_memory_that_is_shared_is_counted_once(client: SizingClient) -> None:
    def check(usable_bytes: int, *, unified: bool) -> sizing_service_pb2.CheckFitResponse:
        request = sizing_service_pb2.CheckFitRequest(workload=example("llama3-8b-sft").workload)
        machine = request.machine
        machine.name, machine.vcpus, machine.cpu_architecture = "machines/m", 20, "arm64"
        machine.host_memory.nominal_bytes = machine.host_memory.usable_bytes = usable_bytes
        machine.accelerators.device, machine.accelerators.count = "GB10", 1
        machine.accelerators.usable_bytes = usable_bytes
        machine.unified_memory = unified
        return client.check_fit(request)

    apart, shared = (check(400 * GIB, unified=unified) for unified in (False, True))
    gpu, host = (pool.peak for pool in apart.pools)
    shared_gpu, shared_host = (pool.peak for pool in shared.pools)
    assert shared_gpu == gpu
    assert shared_host.best_bytes == host.best_bytes + gpu.best_bytes
    assert shared_host.high_bytes == host.high_bytes + gpu.high_bytes
    # As much as the larger of the two needs is enough for both apart, and not for both at once.
    enough = max(gpu.high_bytes, host.high_bytes)
    assert check(enough, unified=False).verdict == plan_pb2.VERDICT_FITS
    assert check(enough, unified=True).verdict != plan_pb2.VERDICT_FITS


@pytest.mark.parametrize("model", models().values(), ids=list(models()))
def test_a_machine_of_every_model_is_what_the_library_says(model: MachineModel) -> None:
    problems: list[Violation] = []
    message = pb.Machine(name=f"machines/{model.name}", model=model.name)
    read = read_machine(message, "machine", problems)
    assert problems == []
    assert read == model.machine


def test_a_machine_with_shared_memory_can_have_more_of_it_than_its_model() -> None:
    message = pb.Machine(name="machines/a", model="mac-studio-m2-ultra-64gb")
    message.host_memory.nominal_bytes = 192 * GIB
    read = read_machine(message, "machine", [])
    assert read is not None
    assert read.gpu_usable_bytes == 144 * GIB


def test_a_model_that_is_not_known_is_answered_with_near_ones(client: SizingClient) -> None:
    wrong = wrong_fields(client, pb.Machine(name="machines/a", model="dgx-h10"))
    assert "dgx-h100" in wrong["machines.0.model"]


def test_usable_memory_above_the_drivers_total_is_refused(client: SizingClient) -> None:
    machine = pb.Machine(name="machines/a", model="dgx-h100")
    machine.accelerators.usable_bytes = 90 * GIB
    assert set(wrong_fields(client, machine)) == {"machines.0.accelerators.usable_bytes"}


@pytest.mark.parametrize(
    ("ownership", "field"),
    [
        ({"purchase_price_nanos_usd": 1}, "lifetime_years"),
        ({"power_watts": 500.0}, "electricity_per_kwh_nanos_usd"),
        ({"purchase_price_nanos_usd": -1, "lifetime_years": 1.0}, "purchase_price_nanos_usd"),
        ({"utilization": 1.5}, "utilization"),
        ({"power_usage_effectiveness": 0.5}, "power_usage_effectiveness"),
    ],
)
def test_what_is_missing_for_a_cost_is_named(
    client: SizingClient, ownership: dict[str, float], field: str
) -> None:
    machine = pb.Machine(name="machines/a", model="dgx-h100", ownership=pb.Ownership(**ownership))  # type: ignore[arg-type]
    assert set(wrong_fields(client, machine)) == {f"machines.0.ownership.{field}"}


def test_a_stated_cost_beside_another_computed_one_is_refused(client: SizingClient) -> None:
    machine = pb.Machine(name="machines/a", model="dgx-h100", cost_per_hour_nanos_usd=DOLLAR)
    machine.ownership.hosting_per_month_nanos_usd = 100 * DOLLAR
    wrong = wrong_fields(client, machine)
    assert "give one of them" in wrong["machines.0.cost_per_hour_nanos_usd"]


def described(**figures: object) -> pb.Machine:
    """A machine whose GPUs the device table does not know."""
    machine = pb.Machine(name="machines/own", vcpus=64, cost_per_hour_nanos_usd=DOLLAR)
    machine.cpu_architecture = "x86_64"
    machine.host_memory.nominal_bytes = machine.host_memory.usable_bytes = 512 * GIB
    known = {"device": "Prototype", "count": 8, "driver_total_bytes": 96 * GIB}
    machine.accelerators.MergeFrom(
        pb.Accelerators(**{**known, "compute_capability": "9.0", **figures})  # type: ignore[arg-type]
    )
    return machine


def test_a_device_that_is_not_known_ranks_as_its_owner_describes_it(rank: Rank) -> None:
    plans = rank(described()).recommendations
    assert any(plan.machine.accelerators.device == "Prototype" for plan in plans)


@pytest.mark.parametrize("capability", ["", "nan", "inf", "1e400", "-1", "8_9", "sm_90"])
def test_a_compute_capability_that_is_none_is_refused(
    client: SizingClient, capability: str
) -> None:
    wrong = wrong_fields(client, described(compute_capability=capability))
    assert wrong == {
        "machines.0.accelerators.device": "'Prototype' is not in the device table; "
        "give its compute_capability, such as '8.9'"
    }


def test_every_wrong_figure_of_a_described_device_is_named_at_once(client: SizingClient) -> None:
    wrong = wrong_fields(
        client,
        described(
            device="P" * 1000,
            driver_total_bytes=0,
            nominal_bytes=-1,
            link_gb_per_second=float("nan"),
        ),
    )
    where = "machines.0.accelerators"
    assert wrong.keys() == {
        f"{where}.{field}"
        for field in ("device", "driver_total_bytes", "nominal_bytes", "link_gb_per_second")
    }
