"""Disk full, store locked, damaged or gone, several refreshers at once, a clock that jumps back."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doomed import Doom, Doomed
from refresh_rig import ALL_OFFERS, OTHER, FakeClock, Rig, prices
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.home import Home
from sizewright_catalog.published import serve_from
from sizewright_catalog.refresh.run import Options, Refresh
from sizewright_catalog.refresh.schedule import is_due
from sizewright_catalog.store import Store
from sizewright_catalog.store import store as store_module
from stand_in_provider import NAME, StandIn

H100 = "providers/standin/regions/east-1/zones/-/instanceTypes/g.h100.8/terms/on-demand"
BEFORE, AFTER = 51_840_000_000, 64_800_000_000
DAY = 86_400


def price(rig: Rig) -> int:
    """The price of the one offer that is looked at, from a version without problems."""
    served = rig.served()
    assert served.problems == ()
    assert len(prices(served.catalog)) == ALL_OFFERS
    return prices(served.catalog)[H100]


def put_machine(rig: Rig) -> None:
    store = Store(rig.home)
    store.put_document("machine", "machines/mine", {"vcpus": 16})
    store.close()


def test_a_disk_that_fills_up_while_the_version_is_written(
    refreshed: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".tmp"):
            name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
            if ".npz." in name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    refreshed.source.price_factor = 1.25
    monkeypatch.setattr(os, "fsync", full)
    last = refreshed.refresh()
    monkeypatch.undo()

    assert last.stage == "failed"
    assert "No space left on device" in refreshed.record().last_error
    assert price(refreshed) == BEFORE
    assert not list(refreshed.home.versions.glob(".*"))
    assert refreshed.refresh().stage == "done"
    assert price(refreshed) == AFTER


@pytest.mark.parametrize("room", [0, 1000, 20_000])
def test_a_disk_on_which_no_file_can_grow(refreshed: Rig, room: int) -> None:
    refreshed.source.price_factor = 1.25

    stage, message, _ = Doomed(refreshed.home, refreshed.url, Doom(file_bytes=room)).last()

    assert stage == "failed"
    assert message
    assert price(refreshed) == BEFORE
    assert refreshed.refresh().stage == "done"
    assert price(refreshed) == AFTER


def test_a_store_that_somebody_keeps_locked(
    refreshed: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.2)
    refreshed.source.price_factor = 1.25
    holder = sqlite3.connect(refreshed.home.root / "store.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")

    last = refreshed.refresh()

    assert last.stage == "failed"
    assert "locked" in refreshed.record().last_error
    assert refreshed.record().failures == 1
    assert price(refreshed) == BEFORE
    holder.execute("ROLLBACK")
    holder.close()
    assert refreshed.refresh().stage == "done"
    assert price(refreshed) == AFTER


def test_a_store_that_is_gone_is_made_anew_from_what_is_published(refreshed: Rig) -> None:
    put_machine(refreshed)
    versions = refreshed.served().published.versions
    (refreshed.home.root / "store.sqlite").unlink()
    refreshed.source.price_factor = 1.25

    assert price(refreshed) == BEFORE
    assert refreshed.refresh().stage == "done"
    assert price(refreshed) == AFTER
    published = refreshed.served().published
    assert published.versions[1:] == versions
    assert published.documents["machine"] == {"machines/mine": {"vcpus": 16}}


@pytest.mark.parametrize("damage", [b"garbage" * 1000, b""])
def test_a_damaged_store_is_set_aside_and_made_anew(refreshed: Rig, damage: bytes) -> None:
    put_machine(refreshed)
    file = refreshed.home.root / "store.sqlite"
    file.write_bytes(damage)
    refreshed.source.price_factor = 1.25

    assert refreshed.refresh().stage == "done"
    assert price(refreshed) == AFTER
    published = refreshed.served().published
    assert published.documents["machine"] == {"machines/mine": {"vcpus": 16}}
    aside = list(refreshed.home.root.glob("store.sqlite.damaged-*"))
    assert [one.read_bytes() for one in aside] == ([damage] if damage else [])


def test_a_home_that_cannot_be_made_is_told_by_the_last_event(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    home = Home(tmp_path / "home")

    last = Refresh(home, StandIn(), Options(), lambda event: None).run()

    assert (last.stage, "cannot be written" in last.message) == ("failed", True)
    assert serve_from(home).catalog.version == Catalog.load().version


def test_what_is_published_and_gone_comes_back_with_the_next_refresh(refreshed: Rig) -> None:
    put_machine(refreshed)
    refreshed.home.published.unlink()

    assert serve_from(refreshed.home).catalog.version == Catalog.load().version
    assert refreshed.refresh().stage == "done"
    assert price(refreshed) == BEFORE
    assert "machine" in refreshed.served().published.documents


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": 9}', b"[]", b'{"format": 1}'])
def test_what_is_published_and_damaged_is_told_and_comes_back(
    refreshed: Rig, damage: bytes
) -> None:
    refreshed.home.published.write_bytes(damage)
    served = serve_from(refreshed.home)

    assert served.catalog.version == Catalog.load().version
    assert "cannot be read" in served.problems[0]
    assert refreshed.refresh().stage == "done"
    assert price(refreshed) == BEFORE


@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_a_version_that_is_damaged_on_the_disk_leaves_the_one_before(
    refreshed: Rig, damage: str
) -> None:
    refreshed.source.price_factor = 1.25
    refreshed.refresh()
    file = refreshed.home.version(refreshed.served().catalog.version)
    content = bytearray(file.read_bytes())
    # More than what pads a member, which holds nothing.
    for at in range(len(content) // 2, len(content) // 2 + 256):
        content[at] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:1000] if damage == "short" else content)

    served = refreshed.served()

    assert prices(served.catalog)[H100] == BEFORE
    assert len(served.problems) == 1
    assert refreshed.refresh().stage == "done"
    assert price(refreshed) == AFTER


def test_of_two_refreshers_of_one_provider_one_is_refused(refreshed: Rig) -> None:
    refreshed.source.price_factor = 1.25
    gate = threading.Event()
    refreshed.source.instead = lambda *_: not gate.wait(20)

    both = [Doomed(refreshed.home, refreshed.url) for _ in range(2)]
    while not any(one.process.exitcode is not None for one in both):
        both[0].process.join(0.05)
    gate.set()
    ended = sorted(one.last() for one in both)

    assert [stage for stage, _, _ in ended] == ["done", "failed"]
    assert [running for _, _, running in ended] == [False, True]
    assert price(refreshed) == AFTER


class Second(StandIn):
    """The same source under another name."""

    name = "second"

    def fetch(self, scope: str, context: Any) -> Any:
        for page in super().fetch(scope, context):
            yield replace(
                page,
                types=[replace(row, provider="second") for row in page.types],
                offers=[replace(row, provider="second") for row in page.offers],
            )


def test_two_providers_refreshed_at_once_both_go_in(refreshed: Rig) -> None:
    refreshed.source.price_factor = 1.25
    options = Options(settings={"endpoint_url": refreshed.url}, spread=random.Random(1))
    second = Refresh(refreshed.home, Second(), options, lambda event: None)
    thread = threading.Thread(target=second.run)
    thread.start()
    first = Doomed(refreshed.home, refreshed.url)
    thread.join()

    assert first.last()[0] == "done"
    assert price(refreshed) == AFTER
    assert len(prices(refreshed.served().catalog, "second")) == ALL_OFFERS
    sequences = [one.sequence for one in refreshed.served().published.versions]
    assert sequences == sorted(sequences, reverse=True)


def test_homes_that_share_a_store_serve_the_same_version(refreshed: Rig, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    refreshed.store_url = url
    other = Home(tmp_path / "other")
    refreshed.source.price_factor = 1.25

    assert refreshed.refresh().stage == "done"
    store = Store(other, url)
    store.publish()
    store.close()

    assert serve_from(other).catalog.version == refreshed.served().catalog.version
    assert prices(serve_from(other).catalog)[H100] == AFTER


def test_homes_that_refresh_one_shared_store_at_once_lose_nothing(
    refreshed: Rig, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    refreshed.store_url = url
    assert refreshed.refresh().stage == "done"
    refreshed.source.price_factor = 1.25
    options = Options(settings={"endpoint_url": refreshed.url}, store_url=url)
    second = Refresh(Home(tmp_path / "other"), Second(), options, lambda event: None)
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(second.run().stage))
    thread.start()
    first = Doomed(refreshed.home, refreshed.url, store_url=url)
    thread.join()

    assert (first.last()[0], ended) == ("done", ["done"])
    store = Store(refreshed.home, url)
    store.publish()
    store.close()
    served = refreshed.served().catalog
    assert prices(served)[H100] == AFTER
    assert len(prices(served, "second")) == ALL_OFFERS
    assert prices(served, OTHER)


def test_a_clock_that_jumps_back_delays_nothing_and_loses_nothing(clocked: Rig) -> None:
    assert isinstance(clocked.clock, FakeClock)
    assert not is_due(clocked.record(), clocked.clock.now())
    clocked.clock.wall -= 30 * DAY
    clocked.source.price_factor = 1.25

    assert is_due(clocked.record(), clocked.clock.now())
    assert clocked.refresh().stage == "done"
    assert price(clocked) == AFTER
    record = clocked.record()
    assert (record.next_try or 0) - clocked.clock.now() < 2 * StandIn.schedule.every_seconds
    entries = clocked.served().published.versions
    assert entries[0].sequence > entries[1].sequence
    assert entries[0].swapped_at < entries[1].swapped_at


def test_an_hour_after_a_refresh_another_is_due_and_not_before(clocked: Rig) -> None:
    assert isinstance(clocked.clock, FakeClock)
    schedule = StandIn.schedule
    now = clocked.clock.now()

    due = [m for m in range(0, 90) if is_due(clocked.record(), now + 60 * m)]

    earliest = schedule.every_seconds * (1 - schedule.jitter) / 60
    latest = schedule.every_seconds * (1 + schedule.jitter) / 60 + 1
    assert earliest <= due[0] <= latest
    assert clocked.record().name == NAME
