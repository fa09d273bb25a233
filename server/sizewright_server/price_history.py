"""The history of prices: the one question that reads the store, and imports it when asked."""

from __future__ import annotations

import base64

from sizewright.v1 import catalog_service_pb2 as pb
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.home import Home
from sizewright_catalog.values import parse_instance_type_name
from sizewright_server import failures
from sizewright_server.estimation.problems import Violation
from sizewright_server.wire.paging import DEFAULT_PAGE, MAX_PAGE
from sizewright_server.wire.requests import TERMS
from sizewright_server.wire.versions import change_messages
from sizewright_server.wire.violations import RequestInvalid


def list_changes(
    request: pb.ListPriceChangesRequest, catalog: Catalog, home: Home, store_url: str | None
) -> pb.ListPriceChangesResponse:
    """A page of the changes of a type's prices, newest first.

    Raises CallFailed, NOT_FOUND for a type that never was and UNAVAILABLE without the store.
    """
    from sizewright_catalog.store import Store, StoreError

    provider, name, terms, before, size = _read(request)
    try:
        store = Store(home, store_url)
        try:
            found = store.price_changes(
                provider,
                name,
                region=request.region,
                terms=terms,
                before_id=before,
                limit=size + 1,
            )
        finally:
            store.close()
    except StoreError as error:
        raise failures.store_broken(str(error)) from error
    if not found and before is None:
        try:
            catalog.find_type(provider, name)
        except KeyError as missing:
            message = str(missing.args[0])
            raise failures.not_found(message, "InstanceType", request.instance_type) from missing
    response = pb.ListPriceChangesResponse()
    for one in found[:size]:
        response.changes.extend(change_messages([one.change], one.entry))
    if len(found) > size:
        response.next_page_token = _token(found[size - 1].id)
    return response


def _read(
    request: pb.ListPriceChangesRequest,
) -> tuple[str, str, tuple[str, ...], int | None, int]:
    """Provider, type, terms, where to go on, page size. Raises RequestInvalid with all at once."""
    problems, provider, name, before = [], "", "", None
    try:
        provider, name = parse_instance_type_name(request.instance_type)
    except ValueError as error:
        problems.append(Violation("instance_type", str(error)))
    terms = tuple(TERMS[number] for number in request.terms if number in TERMS)
    if len(terms) != len(request.terms):
        problems.append(Violation("terms", "must be 'on-demand', 'spot' or 'committed'"))
    if not 0 <= request.page_size <= MAX_PAGE:
        words = f"must be from 0 to {MAX_PAGE:,}, not {request.page_size}"
        problems.append(Violation("page_size", words))
    try:
        before = _position(request.page_token)
    except ValueError:
        words = "is not a token of this listing: pass next_page_token of the same question"
        problems.append(Violation("page_token", words))
    if problems:
        raise RequestInvalid(problems)
    return provider, name, terms, before, request.page_size or DEFAULT_PAGE


def _token(row: int) -> str:
    return base64.urlsafe_b64encode(f"before:{row}".encode()).decode()


def _position(token: str) -> int | None:
    """Raises ValueError for a token that is none of ours."""
    if not token:
        return None
    word, _, row = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
    if word != "before":
        raise ValueError(token)
    return int(row)
