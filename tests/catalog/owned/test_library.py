"""The library of machines people own, and what an hour of one costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewright_catalog.owned.library import MachineModel, find_model, models
from sizewright_catalog.owned.ownership import Ownership, cost_per_hour_nanos_usd
from sizewright_catalog.values import GIB

DOLLAR = 10**9


@pytest.mark.parametrize("model", models().values(), ids=list(models()))
def test_every_model_can_be_sized_and_says_where_it_is_from(model: MachineModel) -> None:
    machine = model.machine
    assert 0 < machine.host_usable_bytes < machine.host_nominal_bytes
    taken = sum(overhead.size_bytes for overhead in machine.overheads)
    assert machine.host_usable_bytes == machine.host_nominal_bytes - taken
    assert bool(machine.device) == bool(machine.device_count) == bool(machine.gpu_usable_bytes)
    if machine.device and not machine.unified_memory:
        assert machine.device.driver_total_bytes is not None
        assert machine.gpu_usable_bytes < machine.device.driver_total_bytes
    if machine.unified_memory:
        assert machine.gpu_usable_bytes <= machine.host_usable_bytes
    assert model.source
    assert model.power_watts > 0


@pytest.mark.parametrize(
    ("name", "gpus", "least_gib", "most_gib"),
    [
        # CUDA totals in out-of-memory messages, and recommendedMaxWorkingSetSize in Metal logs.
        ("dgx-h100", 8, 79.0, 79.33),
        ("dgx-a100-640gb", 8, 79.0, 79.33),
        ("workstation-2x-rtx-4090", 2, 23.4, 23.65),
        ("laptop-rtx-4090", 1, 15.3, 15.99),
        ("dgx-spark", 1, 118.5, 119.7),
        ("jetson-agx-orin-64gb", 1, 60.0, 61.37),
        ("macbook-air-m2-16gb", 1, 10.6, 10.67),
        ("mac-studio-m2-ultra-192gb", 1, 143.9, 144.0),
    ],
)
def test_gpu_memory_is_what_is_reported_of_such_machines(
    name: str, gpus: int, least_gib: float, most_gib: float
) -> None:
    machine = find_model(name).machine
    assert machine.device_count == gpus
    assert least_gib <= machine.gpu_usable_bytes / GIB <= most_gib


def test_every_family_that_people_own_is_there() -> None:
    for start in ("dgx-", "hgx-", "workstation-", "laptop-", "mac", "jetson-", "raspberry-pi-"):
        assert any(name.startswith(start) for name in models()), start


def test_a_near_name_is_offered() -> None:
    with pytest.raises(KeyError, match="dgx-h100"):
        find_model("dgx-h10")


def test_the_cost_of_an_hour_written_out() -> None:
    owned = Ownership(
        purchase_price_nanos_usd=350_640 * DOLLAR,
        lifetime_years=4,
        power_watts=10_000,
        electricity_per_kwh_nanos_usd=DOLLAR // 10,
        power_usage_effectiveness=1.5,
        utilization=0.5,
        hosting_per_month_nanos_usd=1461 * DOLLAR,
    )
    # 87,660 a year is 10 an hour and 20 at half use; 1,461 a month is 2 and 4; 15 kW are 1.50.
    assert cost_per_hour_nanos_usd(owned) == 25_500_000_000


def test_a_machine_that_costs_nothing_costs_nothing() -> None:
    assert cost_per_hour_nanos_usd(Ownership()) == 0


def test_a_price_without_a_lifetime_is_refused() -> None:
    with pytest.raises(ValueError, match="years"):
        cost_per_hour_nanos_usd(Ownership(purchase_price_nanos_usd=1))


@given(
    price=st.integers(1, 10**15),
    years=st.floats(0.5, 20),
    watts=st.floats(0, 20_000),
    use=st.floats(0.01, 1),
)
def test_more_use_and_longer_life_never_make_an_hour_dearer(
    price: int, years: float, watts: float, use: float
) -> None:
    owned = Ownership(price, years, watts, 100_000_000, 1.2, use, 0)
    cost = cost_per_hour_nanos_usd(owned)
    longer = Ownership(price, years * 2, watts, 100_000_000, 1.2, use, 0)
    fuller = Ownership(price, years, watts, 100_000_000, 1.2, (1 + use) / 2, 0)
    assert cost_per_hour_nanos_usd(longer) <= cost
    assert cost_per_hour_nanos_usd(fuller) <= cost
