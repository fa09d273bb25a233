"""What providers say of local disk, of the network between nodes and of interruptions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fetching import context_of, fetched, payload
from sizewright_catalog.providers.aws.interruptions import bands, interruptions
from sizewright_catalog.providers.aws.types import type_row
from sizewright_catalog.providers.gcp.machines import Machine
from sizewright_catalog.providers.gcp.machines import type_row as gcp_row
from sizewright_catalog.snapshot_build import azure
from sizewright_catalog.values import GIB, MIB, Interruption, Network
from stand_in_aws import AwsStandIn

PAGES = [payload("aws", f"describe_instance_types.page{number}") for number in (1, 2)]
ITEMS = {item["InstanceType"]: item for page in PAGES for item in page["InstanceTypes"]}
OLD = payload("aws", "describe_instance_types.t3_micro_p3_16xl.recorded")["InstanceTypes"]
EXCERPT = payload("aws", "spot_advisor_excerpt")
GB = 10**9


def row(item: dict[str, Any]) -> Any:
    made = type_row(item)
    assert made is not None
    return made


def with_network(**changes: Any) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(json.dumps(ITEMS["g5.xlarge"]))
    item["NetworkInfo"] |= changes
    return item


def test_instance_store_is_counted_in_decimal_gigabytes() -> None:
    assert row(ITEMS["p5.48xlarge"]).local_disk_bytes == 30_400 * GB
    assert row(ITEMS["g6f.large"]).local_disk_bytes == 100 * GB


def test_a_type_that_has_no_instance_store_says_so_and_one_that_is_silent_is_unknown() -> None:
    silent = {k: v for k, v in ITEMS["m5.large"].items() if k != "InstanceStorageSupported"}

    assert row(ITEMS["m5.large"]).local_disk_bytes == 0
    assert row(silent).local_disk_bytes is None


def test_bandwidth_is_what_is_held_up_and_not_the_burst() -> None:
    found = row(ITEMS["g5.xlarge"]).network

    assert ITEMS["g5.xlarge"]["NetworkInfo"]["NetworkPerformance"] == "Up to 10 Gigabit"
    assert found == Network(2500, "ethernet", "EC2 DescribeInstanceTypes")


def test_cards_are_summed_and_efa_is_told() -> None:
    found = row(ITEMS["p5.48xlarge"]).network

    assert (found.mbps, found.fabric) == (3_200_000, "efa")


def test_of_two_figures_that_disagree_the_lower_holds() -> None:
    cards = [{"BaselineBandwidthInGbps": 200.0}, {"BaselineBandwidthInGbps": 200.0}]
    stated = with_network(NetworkPerformance="200 Gigabit", NetworkCards=cards)
    both = with_network(NetworkPerformance="2x 300 Gigabit", NetworkCards=cards)

    assert row(stated).network.mbps == 200_000
    assert row(both).network.mbps == 400_000


def test_an_old_answer_without_cards_has_its_text_alone() -> None:
    small, large = (row(item).network for item in OLD)

    assert small.mbps is None, "'Up to 5 Gigabit' holds nothing up"
    assert large.mbps == 25_000
    assert row(with_network(NetworkPerformance="Moderate", NetworkCards=[])).network.mbps is None


def test_google_clouds_bundled_ssd_is_in_partitions_of_its_family() -> None:
    of = Machine("c3-standard-8-lssd", 8, 32 * 1024, False, "", 0, 2, False)
    z3 = Machine("z3-highmem-88", 88, 704 * 1024, False, "", 0, 12, False)
    plain = Machine("n1-standard-8", 8, 30 * 1024, False, "", 0, 0, False)

    assert gcp_row(of).local_disk_bytes == 2 * 375 * GIB
    assert gcp_row(z3).local_disk_bytes == 12 * 3000 * GIB
    assert gcp_row(plain).local_disk_bytes is None


def test_google_clouds_network_is_that_of_its_documentation_or_unknown() -> None:
    a3 = Machine("a3-ultragpu-8g", 224, 2952 * 1024, False, "nvidia-h200-141gb", 8, 0, False)
    plain = Machine("n1-standard-8", 8, 30 * 1024, False, "", 0, 0, False)
    found = gcp_row(a3)

    assert found.network is not None
    assert (found.network.mbps, found.network.fabric) == (3_200_000, "roce")
    assert found.local_disk_bytes == 12_000 * GIB
    assert gcp_row(plain).network is None


def test_azures_temporary_and_nvme_disks_add_up() -> None:
    size = {
        "size": "Standard_ND96isr_H100_v5",
        "retirement_date": "",
        "memory_gib_api": "1900",
        "accelerator": "H100-SXM",
        "gpu_fraction": "1",
        "vcpus": "96",
        "vcpus_available": "96",
        "arch": "x64",
        "gpus_api": "8",
        "local_temp_mb": "1048576",
        "nvme_mib": "29296875",
        "rdma": "True",
    }
    bare = size | {"size": "Standard_X1", "local_temp_mb": "", "rdma": ""}
    ethernet = size | {"size": "Standard_X2", "rdma": "False"}

    made, unknown, plain = (azure._type(one, False) for one in (size, bare, ethernet))

    assert made.local_disk_bytes == (1_048_576 + 29_296_875) * MIB
    assert made.network is not None
    assert (made.network.mbps, made.network.fabric) == (3_200_000, "infiniband")
    assert (unknown.local_disk_bytes, unknown.network) == (None, None)
    assert plain.network == Network(None, "ethernet", "Azure resource SKUs")


def test_the_spot_advisors_bands_are_those_of_its_labels() -> None:
    found = bands(EXCERPT, "s")

    assert found["us-east-1", "p5.48xlarge"] == Interruption(20, 100, "s")
    assert found["us-west-2", "p5.48xlarge"] == Interruption(5, 10, "s")
    assert found["us-east-1", "t3.micro"] == Interruption(0, 5, "s")


@pytest.mark.parametrize("document", [{}, {"ranges": []}, [], {"ranges": [{"label": "often"}]}])
def test_another_document_has_no_bands(document: Any) -> None:
    with pytest.raises((KeyError, ValueError, TypeError)):
        bands(document, "s")


@contextmanager
def serving(content: bytes, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/spot-advisor-data.json"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsStandIn]:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    zone = {"Location": "us-east-1a", "LocationType": "availability-zone"}
    price = {
        "AvailabilityZone": "us-east-1a",
        "SpotPrice": "0.41",
        "Timestamp": "2026-11-24T20:00:00+00:00",
        "ProductDescription": "Linux/UNIX",
    }
    with AwsStandIn() as server:
        server.pages = {
            "DescribeRegions": [{"Regions": [{"RegionName": "us-east-1"}]}],
            "DescribeInstanceTypes": PAGES,
            "DescribeInstanceTypeOfferings": [
                {"InstanceTypeOfferings": [{"InstanceType": name} | zone for name in ITEMS]}
            ],
            "GetProducts": [{"PriceList": []}],
            "DescribeSavingsPlansOfferingRates": [{"searchResults": []}],
            "DescribeSpotPriceHistory": [
                {
                    "SpotPriceHistory": [
                        {"InstanceType": "g5.xlarge"} | price,
                        {"InstanceType": "m5.large"} | price,
                    ]
                }
            ],
        }
        yield server


def test_a_refresh_brings_the_bands_of_the_types_that_have_one(aws: AwsStandIn) -> None:
    with serving(json.dumps(EXCERPT).encode()) as url:
        found = fetched("aws", context_of({"endpoint_url": aws.url, "spot_advisor_url": url}))

    (known,), (unknown,) = found.of("g5.xlarge", "spot"), found.of("m5.large", "spot")
    assert known.interruption == Interruption(20, 100, "AWS Spot Advisor 2026-11-24")
    assert unknown.interruption is None


@pytest.mark.parametrize(("content", "status"), [(b"", 503), (b"{", 200), (b"[]", 200)])
def test_a_refresh_without_the_advisor_is_whole_and_says_so(
    content: bytes, status: int, aws: AwsStandIn
) -> None:
    with serving(content, status) as url:
        found = fetched("aws", context_of({"endpoint_url": aws.url, "spot_advisor_url": url}))

    (offer,) = found.of("g5.xlarge", "spot")
    assert offer.interruption is None
    (said,) = [text for text in found.dropped if "no interruption bands" in text]
    assert found.dropped[said] == 1


def test_nobody_is_asked_beside_another_endpoint_or_where_none_is_wanted() -> None:
    beside = context_of({"ec2_endpoint_url": "http://127.0.0.1:1"})
    nowhere = context_of({"spot_advisor_url": "none"})

    assert interruptions(beside) == interruptions(nowhere) == {}
    assert not beside.dropped
    assert not nowhere.dropped


def test_a_file_is_no_place_to_ask() -> None:
    asked = context_of({"spot_advisor_url": "file:///etc/hosts"})

    assert interruptions(asked) == {}
    assert "http" in next(iter(asked.dropped))
