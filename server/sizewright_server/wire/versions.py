"""Versions, their differences, and changes of prices, as messages."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sizewright.v1 import catalog_pb2
from sizewright.v1 import catalog_service_pb2 as pb
from sizewright_catalog import diff as diffs
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.home import Home
from sizewright_catalog.published import Published, VersionEntry
from sizewright_catalog.snapshot import SnapshotError
from sizewright_catalog.values import offer_name
from sizewright_server.estimation.problems import Violation
from sizewright_server.wire.machines import KIND_NUMBERS, moment
from sizewright_server.wire.paging import page
from sizewright_server.wire.violations import RequestInvalid

DEFAULT_CHANGES = 100
MAX_CHANGES = 1000


def list_versions(
    request: pb.ListCatalogVersionsRequest, published: Published
) -> pb.ListCatalogVersionsResponse:
    """A page of the versions that are kept, newest first."""
    found = np.arange(len(published.versions))
    stamp = published.version
    rows, token = page(found, request.page_size, request.page_token, stamp, ["versions"])
    return pb.ListCatalogVersionsResponse(
        versions=[_entry(published.versions[i]) for i in rows], next_page_token=token
    )


def diff(
    request: pb.DiffCatalogRequest, published: Published, home: Home
) -> pb.DiffCatalogResponse:
    """How two versions differ. Raises LookupError for a version that is not kept."""
    if not 0 <= request.max_changes <= MAX_CHANGES:
        words = f"must be from 0 to {MAX_CHANGES:,}, not {request.max_changes}"
        raise RequestInvalid([Violation("max_changes", words)])
    named = _find(published, request.before, 0) if request.before else None
    after = _find(published, request.after, 0)
    before = named or _find(published, "", published.versions.index(after) + 1)
    versions = [_load(home, entry) for entry in (before, after)]
    if request.provider and not any(request.provider in one.providers for one in versions):
        raise RequestInvalid([Violation("provider", f"{request.provider!r} is in neither version")])
    difference = diffs.Difference(versions[0].arrays, versions[1].arrays)
    count = request.max_changes or DEFAULT_CHANGES
    return pb.DiffCatalogResponse(
        before=before.version,
        after=after.version,
        changes=[
            changes_message(one)
            for one in difference.changes()
            if request.provider in ("", one.provider)
        ],
        price_changes=change_messages(difference.largest(request.provider, count), after),
    )


def changes_message(changes: diffs.OfferChanges) -> catalog_pb2.OfferChanges:
    """How a provider's offers differ."""
    return catalog_pb2.OfferChanges(
        provider=changes.provider,
        added_count=changes.added,
        removed_count=changes.removed,
        dearer_count=changes.dearer,
        cheaper_count=changes.cheaper,
        added_types=changes.added_types,
        removed_types=changes.removed_types,
    )


def change_messages(
    changes: Iterable[diffs.PriceChange], entry: VersionEntry
) -> list[catalog_pb2.PriceChange]:
    """Changes that a version brought."""
    return [
        catalog_pb2.PriceChange(
            offer=offer_name(
                one.provider, one.region, one.type, one.commitment or one.term, one.zone
            ),
            change_time=moment(entry.swapped_at),
            before_nanos=one.before_nanos,
            after_nanos=one.after_nanos,
            currency=one.currency,
            kind=KIND_NUMBERS[one.kind],
            version=entry.version,
        )
        for one in changes
    ]


def _entry(entry: VersionEntry) -> pb.CatalogVersionEntry:
    return pb.CatalogVersionEntry(
        version=entry.version,
        swap_time=moment(entry.swapped_at),
        offer_count=entry.offer_count,
        instance_type_count=entry.type_count,
        reason=entry.reason,
    )


def _find(published: Published, name: str, otherwise: int) -> VersionEntry:
    """The version whose hash begins so, or the one at a position. Raises LookupError."""
    if not name:
        if otherwise < len(published.versions):
            return published.versions[otherwise]
        raise LookupError("there is no version before it; `catalog versions` lists what is kept")
    found = [entry for entry in published.versions if entry.version.startswith(name)]
    if len({entry.version for entry in found}) == 1:
        return found[0]
    how = "several versions begin" if found else "no version that is kept begins"
    raise LookupError(f"{how} with {name!r}; `catalog versions` lists what is kept")


def _load(home: Home, entry: VersionEntry) -> Catalog:
    try:
        return Catalog.load(home.version(entry.version))
    except SnapshotError as error:
        raise LookupError(str(error)) from error
