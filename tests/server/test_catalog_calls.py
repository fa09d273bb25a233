"""The catalog service over the bundled snapshot: status, pages, one type, offers."""

from __future__ import annotations

import grpc
import pytest

from sizewright.v1 import catalog_pb2, catalog_service_pb2
from sizewright.v1.catalog_service_pb2_grpc import CatalogServiceStub
from sizewright_client import SizingClient
from sizewright_client.errors import InvalidRequestError, UnknownNameError


@pytest.fixture
def stub(channel: grpc.Channel) -> CatalogServiceStub:
    return CatalogServiceStub(channel)


def test_the_status_counts_by_provider_add_up_to_the_whole(client: SizingClient) -> None:
    status = client.catalog_status()

    assert status.offer_count >= 90_000
    assert status.instance_type_count >= 3_000
    assert sum(each.offer_count for each in status.providers) == status.offer_count
    assert sum(each.instance_type_count for each in status.providers) == status.instance_type_count
    names = [each.provider for each in status.providers]
    assert names == sorted(names)
    assert {"aws", "azure", "gcp"} <= set(names)


def test_pages_of_types_hold_every_name_once_in_order(client: SizingClient) -> None:
    request = catalog_service_pb2.ListInstanceTypesRequest(page_size=1000)

    names = [kind.name for kind in client.instance_types(request)]

    assert len(names) == client.catalog_status().instance_type_count
    assert len(set(names)) == len(names)
    assert names == sorted(names)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_size_of_a_page_does_not_change_what_is_listed(size: int, client: SizingClient) -> None:
    def listed(page_size: int) -> list[str]:
        request = catalog_service_pb2.ListInstanceTypesRequest(
            provider="aws", device="H100-SXM", page_size=page_size
        )
        return [kind.name for kind in client.instance_types(request)]

    assert listed(size) == listed(1000)
    assert "providers/aws/instanceTypes/p5.48xlarge" in listed(size)


def test_a_page_has_100_types_unless_asked_otherwise(stub: CatalogServiceStub) -> None:
    page = stub.ListInstanceTypes(catalog_service_pb2.ListInstanceTypesRequest())

    assert len(page.instance_types) == 100
    assert page.next_page_token


@pytest.mark.parametrize("token", ["1", "nonsense", "MTAwOmFiYw==", "-1", "\u00e4\u00f6", "=" * 9])
def test_a_made_up_page_token_is_refused(token: str, stub: CatalogServiceStub) -> None:
    with pytest.raises(grpc.RpcError, match=r"INVALID_ARGUMENT[\s\S]*page_token"):
        stub.ListInstanceTypes(catalog_service_pb2.ListInstanceTypesRequest(page_token=token))
    with pytest.raises(grpc.RpcError, match=r"INVALID_ARGUMENT[\s\S]*page_token"):
        stub.ListOffers(catalog_service_pb2.ListOffersRequest(page_token=token))


def test_a_token_belongs_to_the_filter_it_was_made_for(
    client: SizingClient, stub: CatalogServiceStub
) -> None:
    first = catalog_service_pb2.ListInstanceTypesRequest(provider="aws", page_size=5)
    token = stub.ListInstanceTypes(first).next_page_token

    other = catalog_service_pb2.ListInstanceTypesRequest(provider="gcp", page_token=token)
    with pytest.raises(InvalidRequestError) as caught:
        list(client.instance_types(other))

    assert [violation.field for violation in caught.value.violations] == ["page_token"]


@pytest.mark.parametrize("size", [-1, 1001, 2**31 - 1])
def test_a_page_size_out_of_range_is_refused(size: int, client: SizingClient) -> None:
    with pytest.raises(InvalidRequestError, match="page_size: must be from 0 to 1,000"):
        next(client.offers(catalog_service_pb2.ListOffersRequest(page_size=size)))


def test_every_filter_that_matches_nothing_known_is_named(client: SizingClient) -> None:
    request = catalog_service_pb2.ListOffersRequest(
        provider="awz", region="us-eastt-1", device="H1000"
    )
    with pytest.raises(InvalidRequestError) as caught:
        next(client.offers(request))

    told = {violation.field: violation.description for violation in caught.value.violations}
    assert told.keys() == {"provider", "region", "device"}
    assert "did you mean 'aws'?" in told["provider"]
    assert "did you mean 'us-east-1'?" in told["region"]


def test_a_type_is_found_with_what_is_sold_and_what_is_usable(client: SizingClient) -> None:
    kind = client.instance_type("providers/aws/instanceTypes/p5.48xlarge")

    assert (kind.vcpus, kind.cpu_architecture) == (192, "x86_64")
    assert (kind.accelerators.device, kind.accelerators.count) == ("H100-SXM", 8)
    # 2 TiB sold; 81,559 MiB is what nvidia-smi shows of each H100.
    assert kind.host_memory.nominal_bytes == 2 * 2**40
    assert kind.accelerators.driver_total_bytes == 81_559 * 2**20
    taken = sum(overhead.size_bytes for overhead in kind.host_memory.overheads)
    assert kind.host_memory.usable_bytes == kind.host_memory.nominal_bytes - taken


def test_a_type_says_its_disk_and_its_network_and_what_is_unknown_is_unset(
    client: SizingClient,
) -> None:
    known = client.instance_type("providers/aws/instanceTypes/p5.48xlarge")
    none = client.instance_type("providers/aws/instanceTypes/t3.micro")
    unknown = client.instance_type("providers/gcp/instanceTypes/n1-standard-8")

    assert known.local_disk_bytes == 30_400 * 10**9
    assert known.local_disk_source == "EC2 DescribeInstanceTypes"
    assert (known.network.bandwidth_gbps, known.network.fabric) == (3200.0, "efa")
    assert known.network.source
    assert none.HasField("local_disk_bytes")
    assert none.local_disk_bytes == 0
    assert not unknown.HasField("local_disk_bytes")
    assert not unknown.HasField("network")


def test_a_spot_offer_says_how_often_it_is_taken_back(client: SizingClient) -> None:
    request = catalog_service_pb2.ListOffersRequest(
        provider="aws", region="us-east-1", type="g5.xlarge"
    )
    spot, demand = sorted(client.offers(request), key=lambda offer: -offer.term)

    assert (spot.interruption.low_percent, spot.interruption.high_percent) == (20, 100)
    assert spot.interruption.source == "AWS Spot Advisor 2025-06-28"
    assert not demand.HasField("interruption")


@pytest.mark.parametrize("provider", ["aws", "awz"])
def test_a_type_that_is_not_there_is_not_found_with_near_names(
    provider: str, client: SizingClient
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        client.instance_type(f"providers/{provider}/instanceTypes/p5.48xlarg")

    assert "providers/aws/instanceTypes/p5.48xlarge" in caught.value.message
    assert caught.value.reason == "NOT_FOUND"


def test_a_name_of_another_form_is_a_wrong_field(client: SizingClient) -> None:
    with pytest.raises(InvalidRequestError, match="providers/PROVIDER/instanceTypes/TYPE"):
        client.instance_type("p5.48xlarge")


def test_offers_come_cheapest_first_with_a_price_its_source_and_its_date(
    client: SizingClient,
) -> None:
    request = catalog_service_pb2.ListOffersRequest(
        provider="aws", type="p5.48xlarge", terms=[catalog_pb2.PURCHASE_TERM_ON_DEMAND]
    )

    offers = list(client.offers(request))

    prices = [offer.price.per_hour_nanos_usd for offer in offers]
    assert prices == sorted(prices)
    assert prices[0] > 0
    names = [offer.name for offer in offers]
    assert len(set(names)) == len(names)
    for offer in offers:
        assert offer.instance_type.type == "p5.48xlarge"
        assert offer.term == catalog_pb2.PURCHASE_TERM_ON_DEMAND
        assert offer.price.source
        assert offer.price.effective_time.seconds > 0
        assert offer.name == (
            f"providers/aws/regions/{offer.region}/zones/-"
            "/instanceTypes/p5.48xlarge/terms/on-demand"
        )


def test_offers_of_every_page_are_each_there_once(client: SizingClient) -> None:
    def names(size: int) -> list[str]:
        request = catalog_service_pb2.ListOffersRequest(
            provider="gcp", region="us-central1", page_size=size
        )
        return [offer.name for offer in client.offers(request)]

    assert names(37) == names(1000)
    assert len(set(names(1000))) == len(names(1000)) > 100
