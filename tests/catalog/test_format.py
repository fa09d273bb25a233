"""A version of an older format: refused by name, and never in the way of serving."""

from __future__ import annotations

from pathlib import Path

import pytest

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.home import Home
from sizewright_catalog.published import Published, VersionEntry, serve_from, write_published
from sizewright_catalog.snapshot import SnapshotError, write_snapshot
from sizewright_catalog.transfer import TransferError, import_version

#: Columns that version 4 of the format brought.
NEW = ("network", "fabric", "local_disk", "interruption")


def older(path: Path) -> str:
    """The bundled catalog as format 3 had it; its version."""
    catalog = Catalog.load()
    arrays = {
        name: array
        for name, array in catalog.arrays.items()
        if not any(word in name for word in NEW)
    }
    return write_snapshot(path, arrays, {**catalog.meta, "format": 3})


def test_a_version_of_an_older_format_is_refused_by_name(tmp_path: Path) -> None:
    older(tmp_path / "old.npz")

    with pytest.raises(SnapshotError, match="is of format 3, not 4"):
        Catalog.load(tmp_path / "old.npz")
    with pytest.raises(TransferError, match="is of format 3, not 4"):
        import_version(Home(tmp_path / "home"), tmp_path / "old.npz")


def test_a_home_that_holds_older_versions_serves_the_bundled_one_and_says_so(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "home")
    home.make()
    version = older(tmp_path / "old.npz")
    (tmp_path / "old.npz").rename(home.version(version))
    entry = VersionEntry(1, version, 1.0, 1, 1, "refresh of aws")
    write_published(home, Published(1, (entry,)))

    served = serve_from(home)

    assert served.catalog.version == Catalog.load().version
    (problem,) = served.problems
    assert "is of format 3, not 4" in problem
