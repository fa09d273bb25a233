"""The Google Cloud provider: real clients over REST against a server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from google.cloud import billing_v1

from fetching import Fetched, context_of, fetched, payload
from sizewright_catalog.providers import load_provider
from sizewright_catalog.providers.contract import (
    FetchContext,
    Garbage,
    NotConfigured,
    Refused,
    Throttled,
    Unavailable,
)
from sizewright_catalog.providers.gcp.names import parts
from sizewright_catalog.providers.gcp.skus import ComponentPrices, component
from stand_in_gcp import GcpStandIn

MACHINES, ACCELERATORS, SKUS = (
    "/aggregated/machineTypes",
    "/aggregated/acceleratorTypes",
    "/services/6F81-5844-456A/skus",
)


@pytest.fixture
def gcp() -> Iterator[GcpStandIn]:
    with GcpStandIn() as server:
        server.pages = {
            MACHINES: [
                payload("gcp", f"machine_types_aggregated_list.page{n}.built") for n in (1, 2)
            ],
            ACCELERATORS: [payload("gcp", "accelerator_types_aggregated_list.built")],
            SKUS: [
                payload("gcp", f"billing_skus_list.{name}")
                for name in ("built", "recorded", "components.built")
            ],
        }
        yield server


@pytest.fixture
def context(gcp: GcpStandIn) -> FetchContext:
    return context_of({"endpoint_url": gcp.url, "project": "example"})


@pytest.fixture
def found(context: FetchContext) -> Fetched:
    return fetched("gcp", context, "us-central1")


def test_every_page_is_read_and_empty_scopes_are_passed_over(
    found: Fetched, gcp: GcpStandIn
) -> None:
    assert found.scopes == ("europe-west4", "us-central1")
    assert {"e2-micro", "a2-ultragpu-8g", "ct5lp-hightpu-4t"} <= set(found.types)
    assert [path.rsplit("/", 1)[1] for path in gcp.asked] == [
        "machineTypes",
        "machineTypes",
        "acceleratorTypes",
        "skus",
        "skus",
        "skus",
    ]


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("a2-highgpu-1g", 3.673385),
        ("a2-ultragpu-8g", 40.550383),
        ("g2-standard-4", 0.706832),
        ("n1-standard-8", 0.379998),
        ("e2-micro", 0.008376),
        ("e2-standard-4", 0.134012),
    ],
)
def test_composed_prices_are_the_listed_ones(found: Fetched, name: str, listed: float) -> None:
    """Whole-machine list prices of us-central1 from another source than the SKUs."""
    assert found.price(name, "on-demand") / 1e9 == pytest.approx(listed, rel=1e-4)


def test_a_bundled_ssd_is_part_of_the_price(found: Fetched) -> None:
    # 8 x 375 GiB at 0.08 dollars a month of 730 hours.
    bare = 96 * 31_611_000 + 1360 * 4_237_000 + 8 * 3_928_100_000
    ssd = found.price("a2-ultragpu-8g", "on-demand") - bare
    assert ssd / 1e9 == pytest.approx(8 * 375 * 0.08 / 730, rel=1e-6)


def test_a_price_of_the_place_beats_one_of_the_continent(found: Fetched) -> None:
    # Iowa's own spot SKUs, not those of the Americas, which are half as dear.
    assert found.price("n2-highmem-128", "spot") == 128 * 14_990_000 + 864 * 2_010_000


def test_commitments_of_one_and_three_years(found: Fetched) -> None:
    one = found.price("n2-highmem-128", "committed", "commitment-1y")
    three = found.price("n2-highmem-128", "committed", "commitment-3y")
    assert one == 128 * 19_915_000 + 864 * 2_669_000
    assert three == 128 * 14_225_000 + 864 * 1_907_000
    # N1 is committed to without a name, and here for one year alone.
    committed = {o.commitment for o in found.of("n1-standard-8", "committed")}
    assert committed == {"commitment-1y"}


def test_every_price_says_that_it_is_composed_and_when_it_was_read(found: Fetched) -> None:
    assert {(o.kind, o.day, o.currency) for o in found.offers} == {
        ("composed", "2026-11-24T21:03:00Z", "USD")
    }


def test_a_machine_with_a_component_without_price_is_listed_and_not_offered(found: Fetched) -> None:
    assert found.types["c4a-standard-4"].cpu_architecture == "arm64"
    assert found.of("c4a-standard-4") == []
    assert found.dropped["gcp: a component has no SKU"] > 0


def test_gpus_are_attached_to_n1_machines_in_zones_that_have_both(found: Fetched) -> None:
    name = "n1-standard-8+nvidia-tesla-t4x2"
    made = found.types[name]
    assert (made.device, made.device_count, made.vcpus) == ("T4", 2, 8)
    # The machine and two GPUs, from two lists of prices.
    assert found.price(name, "on-demand") == 8 * 31_611_000 + 30 * 4_237_000 + 2 * 350_000_000
    assert found.of(name)[0].zones == "us-central1-a"
    # Four T4 are the most of an instance there, and 8 V100 go with up to 96 vCPUs.
    assert "n1-standard-8+nvidia-tesla-t4x4" in found.types
    assert "n1-standard-8+nvidia-tesla-v100x8" in found.types
    assert not any(kind.startswith("e2") and "+" in kind for kind in found.types)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("n1-standard-8+nvidia-tesla-t4x2", ("n1-standard-8", "nvidia-tesla-t4", 2)),
        ("a2-highgpu-1g", ("a2-highgpu-1g", "", 0)),
        ("odd+name", ("odd+name", "", 0)),
    ],
)
def test_what_is_asked_of_google_is_in_the_name(name: str, split: tuple[str, str, int]) -> None:
    assert parts(name) == split


def test_tpus_are_listed_and_marked_unpriced(found: Fetched) -> None:
    tpu = found.types["ct5lp-hightpu-4t"]
    assert (tpu.device, tpu.device_count, tpu.availability) == ("TPU-v5e", 4, "unpriced")
    assert found.of("ct5lp-hightpu-4t") == []


def test_a_part_of_a_gpu_is_a_slice(found: Fetched) -> None:
    small, whole = found.types["g4-standard-6"], found.types["g4-standard-48"]
    assert (small.slice, whole.slice) == (0.125, 1.0)
    assert small.gpu_usable_bytes == whole.gpu_usable_bytes // 8


def test_deprecated_machines_are_retired(gcp: GcpStandIn, context: FetchContext) -> None:
    found = fetched("gcp", context, "europe-west4")
    assert found.types["n1-highcpu-2"].availability == "retired"
    assert found.of("n1-highcpu-2") == []


def test_what_is_sold_as_reservation_alone_is_not_offered_by_the_hour(
    gcp: GcpStandIn, context: FetchContext
) -> None:
    item = {
        "name": "a4-highgpu-8g",
        "guestCpus": 224,
        "memoryMb": 4_063_232,
        "zone": "us-central1-a",
        "accelerators": [{"guestAcceleratorType": "nvidia-b200", "guestAcceleratorCount": 8}],
    }
    gcp.pages[MACHINES] = [{"items": {"zones/us-central1-a": {"machineTypes": [item]}}}]
    gcp.pages[ACCELERATORS] = [{"items": {}}]
    found = fetched("gcp", context)
    (on_demand,) = found.of("a4-highgpu-8g", "on-demand")
    assert on_demand.availability == "reservation-only"
    # A B200 SKU is a slice of the machine: eight of them are all of it.
    assert on_demand.per_hour_nanos == 8 * 16_110_000_000
    (spot,) = found.of("a4-highgpu-8g", "spot")
    assert (spot.availability, spot.per_hour_nanos) == ("available", 8 * 4_279_600_000)


def test_a_zone_without_the_accelerator_is_left_out(gcp: GcpStandIn, context: FetchContext) -> None:
    def machine(zone: str) -> dict[str, object]:
        return {
            "name": "g2-standard-4",
            "guestCpus": 4,
            "memoryMb": 16_384,
            "zone": zone,
            "accelerators": [{"guestAcceleratorType": "nvidia-l4", "guestAcceleratorCount": 1}],
        }

    zones = ("us-central1-a", "us-central1-b")
    gcp.pages[MACHINES] = [
        {"items": {f"zones/{zone}": {"machineTypes": [machine(zone)]} for zone in zones}}
    ]
    there = {"name": "nvidia-l4", "zone": "https://x/zones/us-central1-a"}
    gcp.pages[ACCELERATORS] = [{"items": {"zones/us-central1-a": {"acceleratorTypes": [there]}}}]
    found = fetched("gcp", context)
    assert found.of("g2-standard-4", "on-demand")[0].zones == "us-central1-a"


def test_a_zone_that_could_not_be_reached_is_asked_again_by_itself(
    gcp: GcpStandIn, context: FetchContext
) -> None:
    item = {"name": "n1-standard-8", "guestCpus": 8, "memoryMb": 30_720, "zone": "us-east1-b"}
    gcp.pages[MACHINES] = [{"items": {}, "unreachables": ["zones/us-east1-b"]}]
    gcp.pages["/zones/us-east1-b/machineTypes"] = [{"items": [item]}]
    found = fetched("gcp", context)
    assert found.scopes == ("us-east1",)
    assert found.of("n1-standard-8", "on-demand")[0].zones == "us-east1-b"


@pytest.mark.parametrize(
    ("description", "family", "kind", "term"),
    [
        ("N2 Instance Core running in Americas", "n2", "vcpu", "on-demand"),
        ("N2D AMD Instance Ram running in Paris", "n2d", "memory", "on-demand"),
        ("T2A Arm Instance Core running in Delhi", "t2a", "vcpu", "on-demand"),
        ("M3 Memory-optimized Instance Ram running in Iowa", "m3", "memory", "on-demand"),
        ("Compute optimized Core running in Americas", "c2", "vcpu", "on-demand"),
        ("Memory-optimized Instance Core running in Zurich", "m1", "vcpu", "on-demand"),
        ("Spot Preemptible A3Plus Instance Core running in Iowa", "a3plus", "vcpu", "spot"),
        ("Preemptible N1 Predefined Instance Ram running in EMEA", "n1", "memory", "spot"),
        ("Commitment v1: N2D AMD Cpu in EMEA for 3 Year", "n2d", "vcpu", "commitment-3y"),
        ("Commitment: Compute optimized Ram in Iowa for 1 Year", "c2", "memory", "commitment-1y"),
        ("Commitment v1: Cpu in Montreal for 1 Year", "n1", "vcpu", "commitment-1y"),
        ("C4D Instance Local SSD running in Frankfurt", "c4d", "ssd", "on-demand"),
        ("SSD backed Local Storage in Paris", "", "ssd", "on-demand"),
        ("SSD backed Local Storage attached to Spot Preemptible VMs", "", "ssd", "spot"),
        ("Commitment v1: Local SSD In Iowa for 1 Year", "", "ssd", "commitment-1y"),
        ("Nvidia L4 GPU running in Mumbai", "", "nvidia-l4", "on-demand"),
        (
            "Nvidia H100 80GB Plus GPU attached to Spot Preemptible VMs running in Americas",
            "",
            "nvidia-h100-mega-80gb",
            "spot",
        ),
        (
            "Commitment v1: H200 141GB GPU running in Americas for 3 Years",
            "",
            "nvidia-h200-141gb",
            "commitment-3y",
        ),
    ],
)
def test_what_a_sku_prices_is_read_from_its_description(
    description: str, family: str, kind: str, term: str
) -> None:
    what = component(description)
    assert what is not None
    assert (what.family, what.kind, what.term) == (family, kind, term)


@pytest.mark.parametrize(
    "description",
    [
        "N2 Custom Instance Core running in Americas",
        "N2 Custom Extended Instance Ram running in Americas",
        "N2 Instance Sole Tenancy Core running in Americas",
        "Nvidia Tesla A100 GPU attached to DWS Defined Duration VMs running in Americas",
        "Reserved Nvidia H100 80GB GPU in Americas in Calendar Mode",
        "DWS Calendar Mode A4 Nvidia B200 (1 gpu slice) in Mumbai",
        "Memory Optimized Upgrade Premium for Memory-optimized Instance Core running in Americas",
        "Licensing Fee for Ubuntu Pro on VM with 2 VCPU",
        "Network Internet Egress from Americas to EMEA",
        "",
    ],
)
def test_other_skus_price_no_machine(description: str) -> None:
    assert component(description) is None


def test_prices_in_another_currency_are_not_taken_for_dollars() -> None:
    recorded = payload("gcp", "billing_skus_list.recorded")
    prices = ComponentPrices()
    for sku in recorded["skus"]:
        prices.add(billing_v1.Sku.from_json(json.dumps(sku), ignore_unknown_fields=True))
    # Recorded in rupiah: 508 of them are no 508 dollars.
    assert prices.get("t2d", "vcpu", "on-demand", "asia-southeast1") is None
    assert prices.get("a2", "vcpu", "on-demand", "us-central1") == 31_611_000
    assert prices.unreadable == 4


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (429, "rateLimitExceeded", Throttled),
        (403, "rateLimitExceeded", Throttled),
        (403, "forbidden", Refused),
        (404, "notFound", Refused),
        (500, "backendError", Unavailable),
        (503, "unavailable", Unavailable),
    ],
)
def test_errors_say_whether_to_try_again(
    gcp: GcpStandIn, status: int, reason: str, error: type[Exception]
) -> None:
    gcp.fail(MACHINES, status, reason)
    hurried = context_of({"endpoint_url": gcp.url, "project": "example"}, seconds=0.5)
    with pytest.raises(error, match="machineTypes"):
        load_provider("gcp").scopes(hurried)


def test_a_billing_catalog_that_fails_costs_the_region_and_says_so(
    gcp: GcpStandIn, context: FetchContext
) -> None:
    gcp.fail(SKUS, 403, "forbidden")
    with pytest.raises(Refused, match="skus"):
        fetched("gcp", context)


@pytest.mark.parametrize("body", ["<html>", '{"items": 5}', "{"])
def test_garbage_is_called_garbage(gcp: GcpStandIn, context: FetchContext, body: str) -> None:
    gcp.fail(MACHINES, 200, "", body)
    with pytest.raises(Garbage):
        load_provider("gcp").scopes(context)


def test_pages_that_go_in_a_circle_are_garbage(gcp: GcpStandIn, context: FetchContext) -> None:
    gcp.circles = True
    with pytest.raises(Garbage, match="circle"):
        load_provider("gcp").scopes(context)


def test_a_billing_catalog_without_a_price_is_garbage(
    gcp: GcpStandIn, context: FetchContext
) -> None:
    gcp.pages[SKUS] = [{"skus": []}]
    with pytest.raises(Garbage, match="no SKU"):
        fetched("gcp", context)


def test_a_source_that_is_gone_is_unavailable() -> None:
    nowhere = context_of({"endpoint_url": "http://127.0.0.1:9", "project": "example"})
    with pytest.raises(Unavailable):
        load_provider("gcp").scopes(nowhere)


def test_without_a_project_it_says_what_to_set(gcp: GcpStandIn) -> None:
    with pytest.raises(NotConfigured, match="SIZEWRIGHT_GCP_PROJECT"):
        load_provider("gcp").scopes(context_of({"endpoint_url": gcp.url}))


def test_without_credentials_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent.json")
    with pytest.raises(NotConfigured, match="credentials"):
        load_provider("gcp").scopes(context_of({"project": "example"}))
