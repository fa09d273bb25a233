"""A version out of one home and into another, as one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from refresh_rig import ALL_OFFERS, Rig, prices
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.home import Home
from sizewright_catalog.published import serve_from
from sizewright_catalog.transfer import TransferError, export_version, import_version


def test_what_one_home_exports_another_serves(refreshed: Rig, tmp_path: Path) -> None:
    file, other = tmp_path / "catalog.npz", Home(tmp_path / "other")

    version = export_version(refreshed.home, file)
    entry = import_version(other, file)

    served = serve_from(other)
    assert version == entry.version == served.catalog.version == refreshed.served().catalog.version
    assert prices(served.catalog) == prices(refreshed.served().catalog)
    assert len(prices(served.catalog)) == ALL_OFFERS
    assert entry.reason == "import of catalog.npz"
    assert served.catalog.as_of == refreshed.served().catalog.as_of


def test_an_older_version_that_is_kept_is_exported_by_the_start_of_its_hash(
    refreshed: Rig, tmp_path: Path
) -> None:
    before = refreshed.served().catalog.version
    refreshed.source.price_factor = 1.1
    refreshed.refresh()

    assert export_version(refreshed.home, tmp_path / "old.npz", before[:10]) == before
    assert Catalog.load(tmp_path / "old.npz").version == before


def test_a_home_that_imports_and_then_refreshes_goes_on_from_there(
    refreshed: Rig, tmp_path: Path
) -> None:
    file = tmp_path / "catalog.npz"
    export_version(refreshed.home, file)
    refreshed.home = Home(tmp_path / "other")
    import_version(refreshed.home, file)
    refreshed.source.price_factor = 1.1

    last = refreshed.refresh()

    assert last.changes is not None
    assert (last.changes.added, last.changes.dearer) == (0, ALL_OFFERS)
    assert [one.sequence for one in refreshed.served().published.versions] == [2, 1]


def test_the_same_version_again_changes_nothing(refreshed: Rig, tmp_path: Path) -> None:
    file = tmp_path / "catalog.npz"
    export_version(refreshed.home, file)

    import_version(refreshed.home, file)

    assert len(refreshed.served().published.versions) == 2


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_a_file_that_is_no_version_is_refused_and_changes_nothing(
    refreshed: Rig, tmp_path: Path, content: bytes | None
) -> None:
    file, before = tmp_path / "catalog.npz", refreshed.served().catalog.version
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(TransferError, match=r"catalog\.npz"):
        import_version(refreshed.home, file)
    assert refreshed.served().catalog.version == before


def test_a_damaged_file_is_refused(refreshed: Rig, tmp_path: Path) -> None:
    file = tmp_path / "catalog.npz"
    export_version(refreshed.home, file)
    content = bytearray(file.read_bytes())
    # More than what pads a member, which holds nothing.
    for at in range(len(content) // 2, len(content) // 2 + 256):
        content[at] ^= 1
    file.write_bytes(content)

    with pytest.raises(TransferError, match="damaged"):
        import_version(Home(tmp_path / "other"), file)
    assert not (tmp_path / "other").exists()


def test_a_version_nobody_keeps_cannot_be_exported(refreshed: Rig, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="no version that is kept begins with 'zz'"):
        export_version(refreshed.home, tmp_path / "x.npz", "zz")
    assert not (tmp_path / "x.npz").exists()


def test_a_place_that_cannot_be_written_is_told(refreshed: Rig, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="cannot be written"):
        export_version(refreshed.home, tmp_path / "none" / "x.npz")
