"""The catalog service's requests and answers."""

from __future__ import annotations

from datetime import date

from sizewright.v1 import catalog_service_pb2 as pb
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.values import parse_instance_type_name
from sizewright_server.estimation.problems import Violation
from sizewright_server.wire.machines import (
    instance_type_message,
    offer_message,
    status_message,
    timestamp,
)
from sizewright_server.wire.paging import page
from sizewright_server.wire.requests import TERMS
from sizewright_server.wire.violations import RequestInvalid, one_of


def status_response(catalog: Catalog) -> pb.GetCatalogStatusResponse:
    """The version served, and what it holds of each provider."""
    return pb.GetCatalogStatusResponse(
        version=catalog.version,
        build_time=timestamp(catalog.build_day),
        offer_count=catalog.offer_count,
        instance_type_count=catalog.type_count,
        providers=[status_message(status) for status in catalog.statuses()],
    )


def list_types(
    request: pb.ListInstanceTypesRequest, catalog: Catalog
) -> pb.ListInstanceTypesResponse:
    """A page of instance types."""
    _known(catalog, request.provider, "", request.device)
    found = catalog.types_where(provider=request.provider, device=request.device)
    filters = (request.provider, request.device)
    rows, token = page(found, request.page_size, request.page_token, catalog.version, filters)
    return pb.ListInstanceTypesResponse(
        instance_types=[instance_type_message(catalog.instance_type(i)) for i in rows],
        next_page_token=token,
    )


def get_type(request: pb.GetInstanceTypeRequest, catalog: Catalog) -> pb.GetInstanceTypeResponse:
    """One instance type. Raises LookupError when there is none, RequestInvalid for a bad name."""
    try:
        provider, name = parse_instance_type_name(request.name)
    except ValueError as error:
        raise RequestInvalid([Violation("name", str(error))]) from error
    index = catalog.find_type(provider, name)
    return pb.GetInstanceTypeResponse(
        instance_type=instance_type_message(catalog.instance_type(index))
    )


def list_offers(
    request: pb.ListOffersRequest, catalog: Catalog, today: date
) -> pb.ListOffersResponse:
    """A page of offers, cheapest first."""
    _known(catalog, request.provider, request.region, request.device)
    terms = tuple(TERMS[number] for number in request.terms if number in TERMS)
    if len(terms) != len(request.terms):
        raise RequestInvalid([Violation("terms", "must be 'on-demand', 'spot' or 'committed'")])
    found = catalog.offers_where(
        provider=request.provider,
        region=request.region,
        type_name=request.type,
        device=request.device,
        terms=terms,
    )
    filters = (request.provider, request.region, request.type, request.device, *terms)
    rows, token = page(found, request.page_size, request.page_token, catalog.version, filters)
    return pb.ListOffersResponse(
        offers=[offer_message(catalog.offer(i), today) for i in rows], next_page_token=token
    )


def _known(catalog: Catalog, provider: str, region: str, device: str) -> None:
    """Raises RequestInvalid naming every filter that no entry can match."""
    checks = (
        ("provider", provider, catalog.providers),
        ("region", region, catalog.regions),
        ("device", device, catalog.device_names),
    )
    wrong = [
        Violation(field, one_of(field, name, known))
        for field, name, known in checks
        if name and name not in known
    ]
    if wrong:
        raise RequestInvalid(wrong)
