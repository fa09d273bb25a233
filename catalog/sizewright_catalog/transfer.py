"""A version as one file, out of a home and into another: for sites without a network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.diff import Difference, PriceChange
from sizewright_catalog.home import Home
from sizewright_catalog.locks import Timeout, commit_lock
from sizewright_catalog.published import VersionEntry, serve_from
from sizewright_catalog.snapshot import (
    Arrays,
    SnapshotError,
    read_snapshot,
    replacing,
    write_snapshot,
)
from sizewright_catalog.store import Store, StoreError, VersionConflict


class TransferError(Exception):
    """A version that cannot be exported or imported; the text says why."""


def export_version(home: Home, to: Path, version: str = "") -> str:
    """Writes the version served, or the kept one whose hash begins so, to a file. Its hash.

    Raises TransferError; then there is no new file.
    """
    served = serve_from(home)
    if version and not served.catalog.version.startswith(version):
        kept = {one.version for one in served.published.versions if one.version.startswith(version)}
        if len(kept) != 1:
            how = "several versions begin" if kept else "no version that is kept begins"
            raise TransferError(f"{how} with {version!r}")
        source = home.version(kept.pop())
        arrays, meta = _read(source)
    else:
        arrays, meta = served.catalog.arrays, served.catalog.meta
    try:
        return write_snapshot(to, arrays, meta)
    except OSError as error:
        raise TransferError(f"{to} cannot be written: {error.strerror or error}") from error


def import_version(home: Home, source: Path, store_url: str | None = None) -> VersionEntry:
    """Makes the version in a file the one that is served; a damaged file changes nothing.

    Raises TransferError.
    """
    _read(source)
    catalog = Catalog.load(source)
    try:
        home.make()
        with commit_lock(home):
            store = Store(home, store_url)
            try:
                store.publish()
                return _put_in(home, store, catalog, source)
            finally:
                store.close()
    except (StoreError, OSError, VersionConflict) as error:
        raise TransferError(f"{source} cannot be imported: {error}") from error
    except Timeout as error:
        raise TransferError("another process has kept the catalog locked for minutes") from error


def _put_in(home: Home, store: Store, catalog: Catalog, source: Path) -> VersionEntry:
    base = serve_from(home)
    if base.published.version == catalog.version:
        return base.published.versions[0]
    with replacing(home.version(catalog.version)) as file:
        file.write(source.read_bytes())
    entry = VersionEntry(
        sequence=base.published.sequence + 1,
        version=catalog.version,
        swapped_at=time.time(),
        offer_count=catalog.offer_count,
        type_count=catalog.type_count,
        reason=f"import of {source.name}",
    )
    store.commit(entry, None, _moves(base.catalog, catalog))
    store.publish()
    store.prune()
    return entry


def _moves(before: Catalog, after: Catalog) -> list[PriceChange]:
    difference = Difference(before.arrays, after.arrays)
    return [
        change
        for provider in after.providers
        for change in difference.price_changes(provider, coming_and_going=False)
    ]


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    try:
        return read_snapshot(path)
    except SnapshotError as error:
        raise TransferError(str(error)) from error
