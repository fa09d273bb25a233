"""The AWS provider: real boto3 against servers on loopback that answer as AWS does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from fetching import Fetched, context_of, fetched, payload
from sizewright_catalog.providers import load_provider
from sizewright_catalog.providers.aws.policy import policy
from sizewright_catalog.providers.aws.prices import plan_line, price_lines
from sizewright_catalog.providers.aws.spot import SpotHistory
from sizewright_catalog.providers.aws.types import type_row
from sizewright_catalog.providers.contract import (
    Cancelled,
    FetchContext,
    Garbage,
    NotConfigured,
    Refused,
    Throttled,
    Unavailable,
)
from sizewright_catalog.values import MIB
from stand_in_aws import AwsStandIn

PAGES = [payload("aws", f"describe_instance_types.page{number}") for number in (1, 2)]
ITEMS = {item["InstanceType"]: item for page in PAGES for item in page["InstanceTypes"]}
ZONES = ("us-east-1a", "us-east-1c", "us-east-1-bos-1a")
RATE: dict[str, Any] = {
    "savingsPlanOffering": {
        "offeringId": "o",
        "paymentOption": "No Upfront",
        "planType": "Compute",
        "durationSeconds": 94_608_000,
        "currency": "USD",
    },
    "rate": "27.97",
    "unit": "Hrs",
    "productType": "EC2",
    "serviceCode": "AmazonEC2",
    "usageType": "BoxUsage:p5.48xlarge",
    "operation": "RunInstances",
    "properties": [
        {"name": "region", "value": "us-east-1"},
        {"name": "instanceType", "value": "p5.48xlarge"},
        {"name": "instanceFamily", "value": "p5"},
        {"name": "productDescription", "value": "Linux/UNIX"},
        {"name": "tenancy", "value": "shared"},
    ],
}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def aws() -> Iterator[AwsStandIn]:
    with AwsStandIn() as server:
        offered = [
            {"InstanceType": name, "Location": zone, "LocationType": "availability-zone"}
            for name in ITEMS
            for zone in ZONES
        ]
        server.pages = {
            "DescribeRegions": [
                {"Regions": [{"RegionName": "us-east-1"}, {"RegionName": "eu-west-1"}]}
            ],
            "DescribeInstanceTypes": PAGES,
            "DescribeInstanceTypeOfferings": [
                {"InstanceTypeOfferings": offered[:30]},
                {"InstanceTypeOfferings": offered[30:]},
            ],
            "GetProducts": [payload("aws", "pricing_get_products.page.built")],
            "DescribeSavingsPlansOfferingRates": [{"searchResults": [RATE]}],
            "DescribeSpotPriceHistory": [
                payload("aws", "describe_spot_price_history.m5_large.recorded")
            ],
        }
        yield server


@pytest.fixture
def context(aws: AwsStandIn) -> FetchContext:
    return context_of({"endpoint_url": aws.url})


@pytest.fixture
def region(context: FetchContext) -> Fetched:
    return fetched("aws", context, "us-east-1")


def test_every_page_of_types_and_zones_is_read(region: Fetched) -> None:
    linux = {name for name in ITEMS if not name.startswith("mac")}
    assert set(region.types) == linux
    assert region.of("g5.xlarge")[0].zones == "us-east-1a us-east-1c"
    assert region.dropped["aws: runs no Linux"] == 1


def test_the_scopes_are_the_regions_of_the_account(region: Fetched) -> None:
    assert region.scopes == ("eu-west-1", "us-east-1")


def test_settings_narrow_the_regions(aws: AwsStandIn) -> None:
    narrowed = context_of({"endpoint_url": aws.url, "regions": " eu-west-1 ,"})
    assert load_provider("aws").scopes(narrowed) == ["eu-west-1"]


def test_a_region_that_is_not_enabled_is_refused_by_name(aws: AwsStandIn) -> None:
    wrong = context_of({"endpoint_url": aws.url, "regions": "us-east-1,me-south-1"})
    with pytest.raises(Refused, match="me-south-1"):
        load_provider("aws").scopes(wrong)


def test_list_prices_are_those_of_plain_linux_machines(region: Fetched) -> None:
    assert region.price("p5.48xlarge", "on-demand") == 55_040_000_000
    assert region.price("g5.xlarge", "on-demand") == 1_006_000_000
    # A Dedicated host costs 0 and Windows more: neither is an offer.
    assert region.price("m5.metal", "on-demand") == 4_608_000_000
    assert all(offer.per_hour_nanos > 0 for offer in region.offers)
    assert {offer.day for offer in region.of("p5.48xlarge", "on-demand")} == {
        "2026-11-24T21:03:00Z"
    }


def test_reserved_prices_spread_what_is_paid_ahead_over_the_term(region: Fetched) -> None:
    terms = {o.commitment: o for o in region.of("m5.large", "committed")}
    assert terms["reserved-1y-no-upfront"].per_hour_nanos == 60_000_000
    assert terms["reserved-1y-no-upfront"].kind == "list"
    # 494 dollars ahead over 8,760 hours.
    assert terms["reserved-1y-all-upfront"].per_hour_nanos == 56_392_694
    assert terms["reserved-1y-all-upfront"].kind == "composed"
    assert terms["reserved-3y-no-upfront"].per_hour_nanos == 41_000_000
    assert set(terms) == {
        "reserved-1y-no-upfront",
        "reserved-1y-all-upfront",
        "reserved-3y-no-upfront",
        "reserved-3y-all-upfront",
    }


def test_savings_plans_are_committed_prices(region: Fetched) -> None:
    committed = "compute-savings-plan-3y-no-upfront"
    assert region.price("p5.48xlarge", "committed", committed) == 27_970_000_000


def test_spot_prices_are_per_zone_with_their_history_and_age(region: Fetched) -> None:
    prices = {offer.zone: offer for offer in region.of("m5.large", "spot")}
    # Local Zones and zones without the type are left out.
    assert set(prices) == {"us-east-1a", "us-east-1c"}
    latest = prices["us-east-1a"]
    assert latest.zones == "us-east-1a"
    assert latest.per_hour_nanos == 42_300_000
    assert latest.day == "2021-02-08T23:58:38Z"
    assert (latest.spot_low_nanos, latest.spot_median_nanos) == (40_700_000, 41_500_000)


def test_the_history_asked_for_is_that_of_the_settings(aws: AwsStandIn) -> None:
    fetched("aws", context_of({"endpoint_url": aws.url, "spot_history_hours": "6"}), "us-east-1")
    (asked,) = [given for name, given in aws.asked if name == "DescribeSpotPriceHistory"]
    assert asked["StartTime"].startswith("2026-11-24T15:03")
    assert asked["ProductDescription.1"] == "Linux/UNIX"


def test_the_latest_price_holds_in_whatever_order_changes_come() -> None:
    def change(hour: int, price: str) -> dict[str, Any]:
        return {
            "InstanceType": "a",
            "AvailabilityZone": "z",
            "SpotPrice": price,
            "Timestamp": datetime(2026, 1, 1, hour, tzinfo=UTC),
        }

    history = SpotHistory()
    history.add([change(3, "0.30"), change(9, "0.10"), change(5, "0.50"), change(1, "0.20")])
    (price,) = history.prices()
    assert (price.latest_nanos, price.lowest_nanos, price.median_nanos) == (
        100_000_000,
        100_000_000,
        200_000_000,
    )
    assert price.since == "2026-01-01T09:00:00Z"


@pytest.mark.parametrize(
    ("name", "device", "count", "share", "stated_mib"),
    [
        ("g6f.large", "L4", 1, 0.125, 2861),
        ("g5.48xlarge", "A10G", 8, 1.0, 22_888),
        ("p4d.24xlarge", "A100-40GB-SXM", 8, 1.0, 40_960),
        ("p6-b200.48xlarge", "B200", 8, 1.0, 183_359),
        ("trn2.48xlarge", "Trainium2", 16, 1.0, 0),
    ],
)
def test_devices_are_told_apart_by_name_memory_and_fraction(
    name: str, device: str, count: int, share: float, stated_mib: int
) -> None:
    row = type_row(ITEMS[name])
    assert row is not None
    assert (row.device, row.device_count, row.slice) == (device, count, share)
    assert row.stated_device_bytes == stated_mib * MIB


def test_gpu_memory_is_what_cuda_hands_out_not_what_the_api_says() -> None:
    row = type_row(ITEMS["g4dn.xlarge"])
    assert row is not None
    # 16,384 MiB says the API, 15,360 the driver, 14.56 GiB CUDA.
    assert row.gpu_usable_bytes == 14_909 * MIB


def test_items_recorded_before_there_were_fractions_are_read() -> None:
    recorded = payload("aws", "describe_instance_types.t3_micro_p3_16xl.recorded")
    rows = {row.type: row for item in recorded["InstanceTypes"] if (row := type_row(item))}
    assert (rows["p3.16xlarge"].device, rows["p3.16xlarge"].device_count) == ("V100-16GB", 8)
    assert rows["t3.micro"].device == ""


def test_guest_memory_is_the_measured_one_where_someone_measured() -> None:
    row = type_row(ITEMS["p5.48xlarge"])
    assert row is not None
    assert row.host_measured
    assert row.host_visible_bytes == 2_047_959 * MIB


def test_a_type_of_capacity_blocks_alone_is_marked_and_has_no_price(aws: AwsStandIn) -> None:
    item = {**ITEMS["p5.48xlarge"], "SupportedUsageClasses": ["capacity-block"]}
    aws.pages["DescribeInstanceTypes"] = [{"InstanceTypes": [item]}]
    found = fetched("aws", context_of({"endpoint_url": aws.url}), "us-east-1")
    assert found.types["p5.48xlarge"].availability == "capacity-block-only"
    assert found.of("p5.48xlarge") == []
    assert found.dropped["aws: capacity blocks only"] > 0


def test_a_price_without_a_type_in_the_region_is_no_offer(aws: AwsStandIn) -> None:
    aws.pages["DescribeInstanceTypes"] = PAGES[:1]
    found = fetched("aws", context_of({"endpoint_url": aws.url}), "us-east-1")
    assert {offer.type for offer in found.offers} <= set(found.types)


def test_the_recorded_item_of_the_price_list_is_read() -> None:
    recorded = payload("aws", "pricing_price_list_item.m5_large.recorded")
    lines = list(price_lines(json.dumps(recorded)))
    assert [line.per_hour_nanos for line in lines if line.term == "on-demand"] == [96_000_000]


def test_rates_of_other_tenancies_and_systems_are_left_out() -> None:
    dedicated = [*RATE["properties"], {"name": "tenancy", "value": "dedicated"}]
    assert plan_line({**RATE, "properties": dedicated}) is None
    assert plan_line({**RATE, "usageType": "UnusedBox:p5.48xlarge"}) is None
    assert plan_line(RATE) is not None


def test_savings_plans_that_may_not_be_read_cost_only_themselves(
    aws: AwsStandIn, context: FetchContext
) -> None:
    aws.fail("DescribeSavingsPlansOfferingRates", 403, "AccessDeniedException")
    found = fetched("aws", context, "us-east-1")
    assert found.price("p5.48xlarge", "on-demand") == 55_040_000_000
    assert any("no savings plans" in reason for reason in found.dropped)


@pytest.mark.parametrize(
    ("operation", "status", "code", "error"),
    [
        ("DescribeInstanceTypes", 400, "Throttling", Throttled),
        ("DescribeInstanceTypes", 503, "RequestLimitExceeded", Throttled),
        ("GetProducts", 400, "ThrottlingException", Throttled),
        ("GetProducts", 429, "Slow", Throttled),
        ("GetProducts", 500, "InternalErrorException", Unavailable),
        ("DescribeInstanceTypes", 403, "UnauthorizedOperation", Refused),
        ("DescribeRegions", 401, "AuthFailure", Refused),
    ],
)
def test_errors_say_whether_to_try_again(
    aws: AwsStandIn,
    context: FetchContext,
    operation: str,
    status: int,
    code: str,
    error: type[Exception],
) -> None:
    aws.fail(operation, status, code)
    with pytest.raises(error, match=code):
        fetched("aws", context, "us-east-1")


def test_a_page_that_is_throttled_once_is_asked_for_again(
    aws: AwsStandIn, context: FetchContext
) -> None:
    aws.fail("GetProducts", 400, "ThrottlingException", times=1)
    assert fetched("aws", context, "us-east-1").price("p5.48xlarge", "on-demand") > 0


def test_garbage_is_called_garbage(aws: AwsStandIn, context: FetchContext) -> None:
    aws.pages["GetProducts"] = [{"PriceList": ["{"]}]
    with pytest.raises(Garbage, match="GetProducts"):
        fetched("aws", context, "us-east-1")


@pytest.mark.parametrize(
    "operation", ["DescribeInstanceTypes", "GetProducts", "DescribeSavingsPlansOfferingRates"]
)
def test_pages_that_go_in_a_circle_are_garbage(
    aws: AwsStandIn, context: FetchContext, operation: str
) -> None:
    aws.circles = {operation}
    with pytest.raises(Garbage):
        fetched("aws", context, "us-east-1")


def test_a_page_that_breaks_off_is_not_taken_for_the_whole(
    aws: AwsStandIn, context: FetchContext
) -> None:
    aws.cut = {"DescribeInstanceTypes": 5000, "GetProducts": 5000}
    with pytest.raises((Garbage, Unavailable), match="DescribeInstanceTypes") as broken:
        fetched("aws", context, "us-east-1")
    assert len(str(broken.value)) < 400


def test_a_source_that_is_gone_is_unavailable(aws: AwsStandIn) -> None:
    nowhere = context_of({"endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(Unavailable):
        load_provider("aws").scopes(nowhere)


def test_a_cancelled_fetch_stops_between_pages(context: FetchContext) -> None:
    source = load_provider("aws")
    source.scopes(context)
    pages = iter(source.fetch("us-east-1", context))
    next(pages)
    context.cancelled.set()
    with pytest.raises(Cancelled):
        next(pages)


def test_without_credentials_it_says_what_to_set(
    aws: AwsStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(NotConfigured, match="AWS_PROFILE"):
        load_provider("aws").scopes(context_of({"endpoint_url": aws.url}))


@pytest.fixture
def scored(aws: AwsStandIn) -> AwsStandIn:
    aws.pages["DescribeAvailabilityZones"] = [
        {
            "AvailabilityZones": [
                {"ZoneName": "us-east-1a", "ZoneId": "use1-az6"},
                {"ZoneName": "us-east-1c", "ZoneId": "use1-az2"},
            ]
        }
    ]
    aws.pages["GetSpotPlacementScores"] = [
        {
            "SpotPlacementScores": [
                {"Region": "us-east-1", "AvailabilityZoneId": "use1-az2", "Score": 7}
            ]
        },
        {
            "SpotPlacementScores": [
                {"Region": "us-east-1", "AvailabilityZoneId": "use1-az9", "Score": 1}
            ]
        },
    ]
    return aws


def test_placement_scores_are_of_the_zones_of_the_account(scored: AwsStandIn) -> None:
    asked = context_of({"endpoint_url": scored.url, "placement_scores": "m5.large, x9.none"})
    found = fetched("aws", asked, "us-east-1")
    scores = {offer.zone: offer.placement_score for offer in found.of("m5.large", "spot")}
    assert scores == {"us-east-1a": 0, "us-east-1c": 7}
    questions = [given for name, given in scored.asked if name == "GetSpotPlacementScores"]
    assert {given["InstanceType.1"] for given in questions} == {"m5.large"}
    allowed = policy(placement_scores=True)["Statement"][0]["Action"]
    assert {action.split(":")[1] for action in allowed} == {name for name, _ in scored.asked}


def test_placement_scores_that_are_used_up_cost_only_themselves(scored: AwsStandIn) -> None:
    scored.fail("GetSpotPlacementScores", 400, "MaxConfigLimitExceeded")
    asked = context_of({"endpoint_url": scored.url, "placement_scores": "m5.large"})
    found = fetched("aws", asked, "us-east-1")
    assert {offer.placement_score for offer in found.of("m5.large", "spot")} == {0}
    assert any("MaxConfigLimitExceeded" in reason for reason in found.dropped)


def test_the_policy_allows_what_is_asked_and_nothing_else(
    aws: AwsStandIn, context: FetchContext
) -> None:
    fetched("aws", context, "us-east-1")
    asked = {name for name, _ in aws.asked}
    (statement,) = policy(placement_scores=False)["Statement"]
    assert {action.split(":")[1] for action in statement["Action"]} == asked
    assert statement["Effect"] == "Allow"


@pytest.mark.parametrize("region", ["us-east-1", "mx-central-1"])
def test_ec2_as_moto_serves_it(aws: AwsStandIn, region: str) -> None:
    """1,395 recorded types behind real filters and XML; no offering at all in a new region."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        found = fetched(
            "aws",
            context_of(
                {
                    "endpoint_url": aws.url,
                    "ec2_endpoint_url": f"http://{host}:{port}",
                    "instance_types": "p5.48xlarge,g6f.large,g5.xlarge",
                    "regions": region,
                }
            ),
        )
    finally:
        server.stop()
    if region == "mx-central-1":
        assert found.types == {}
        assert found.offers == []
        return
    assert set(found.types) == {"p5.48xlarge", "g6f.large", "g5.xlarge"}
    assert found.price("p5.48xlarge", "on-demand") == 55_040_000_000
    assert {offer.zone[:-1] for offer in found.of("g5.xlarge", "spot")} == {"us-east-1"}


def test_the_price_list_is_asked_of_the_home_region_of_the_partition(aws: AwsStandIn) -> None:
    """China has its own, and prices in its own currency, which are not taken for dollars."""
    item = json.loads(aws.pages["GetProducts"][0]["PriceList"][1])
    for term in item["terms"]["OnDemand"].values():
        for dimension in term["priceDimensions"].values():
            dimension["pricePerUnit"] = {"CNY": "392.1"}
    aws.pages["GetProducts"] = [{"PriceList": [json.dumps(item)]}]
    asked = context_of({"endpoint_url": aws.url, "home_region": "cn-northwest-1"})
    found = fetched("aws", asked, "us-east-1")
    (offer,) = found.of("p5.48xlarge", "on-demand")
    assert (offer.currency, offer.per_hour_nanos) == ("CNY", 392_100_000_000)
    signed = {scope.split("/")[2] for scope in aws.scopes if scope.endswith("pricing/aws4_request")}
    assert signed == {"cn-northwest-1"}
