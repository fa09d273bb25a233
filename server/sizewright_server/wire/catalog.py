"""The catalog service's requests and answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from sizewright.v1 import catalog_service_pb2 as pb
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.published import Published
from sizewright_catalog.values import parse_instance_type_name
from sizewright_server.estimation.problems import Violation
from sizewright_server.wire.machines import instance_type_message, moment, offer_message
from sizewright_server.wire.paging import page
from sizewright_server.wire.plans import version_message
from sizewright_server.wire.requests import TERMS
from sizewright_server.wire.statuses import provider_messages
from sizewright_server.wire.violations import RequestInvalid, one_of


def status_response(
    catalog: Catalog, published: Published, problems: Sequence[str]
) -> pb.GetCatalogStatusResponse:
    """The version served, what it holds of each provider, and how their refreshes go."""
    return pb.GetCatalogStatusResponse(
        version=catalog.version,
        build_time=moment(catalog.build_time),
        offer_count=catalog.offer_count,
        instance_type_count=catalog.type_count,
        providers=provider_messages(catalog, published),
        problems=problems,
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
        catalog=version_message(catalog, None),
    )


def get_type(request: pb.GetInstanceTypeRequest, catalog: Catalog) -> pb.GetInstanceTypeResponse:
    """One instance type. Raises LookupError when there is none, RequestInvalid for a bad name."""
    try:
        provider, name = parse_instance_type_name(request.name)
    except ValueError as error:
        raise RequestInvalid([Violation("name", str(error))]) from error
    index = catalog.find_type(provider, name)
    return pb.GetInstanceTypeResponse(
        instance_type=instance_type_message(catalog.instance_type(index)),
        catalog=version_message(catalog, None),
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
    offers = [catalog.offer(i) for i in rows]
    return pb.ListOffersResponse(
        offers=[offer_message(offer, today) for offer in offers],
        next_page_token=token,
        catalog=version_message(catalog, min((o.price.day for o in offers), default=None)),
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
