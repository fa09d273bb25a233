"""Refreshes killed at any moment: readers see the version before or the one after, never between.

After each kill the home is opened as a new reader would, and then refreshed again.
"""

from __future__ import annotations

import random
import time

import pytest

from doomed import Doom, Doomed
from refresh_rig import ALL_OFFERS, OTHER, Rig, prices
from sizewright_catalog.refresh.events import STAGES
from sizewright_catalog.store import Store
from stand_in_provider import NAME

H100 = "providers/standin/regions/east-1/zones/-/instanceTypes/g.h100.8/terms/on-demand"
BEFORE, AFTER = 51_840_000_000, 64_800_000_000
MACHINE = {"vcpus": 16}
#: A killed refresh leaves its trace in the status from its first write on.
KILLED = "killed"


def prepare(rig: Rig) -> dict[str, int]:
    """A machine in the store, and prices that are about to rise by a quarter."""
    store = Store(rig.home)
    store.put_document("machine", "machines/mine", MACHINE)
    store.close()
    rig.source.price_factor = 1.25
    return prices(rig.served().catalog, OTHER)


def assert_whole(rig: Rig, others: dict[str, int]) -> int:
    """One of the two versions is served, nothing torn and nothing lost; the price it states."""
    served = rig.served()
    assert served.problems == ()
    found = prices(served.catalog)
    assert len(found) == ALL_OFFERS
    assert found[H100] in (BEFORE, AFTER)
    factor = found[H100] / BEFORE
    assert found[H100.replace("on-demand", "spot")] == pytest.approx(0.4 * BEFORE * factor)
    assert found[H100.replace("east-1", "west-1")] == found[H100]
    assert prices(served.catalog, OTHER) == others
    assert served.published.documents["machine"] == {"machines/mine": MACHINE}
    return found[H100]


def assert_recovers(rig: Rig, others: dict[str, int]) -> None:
    """The next refresh goes in, leaves nothing behind, and the history has each change once."""
    assert rig.refresh().stage == "done"
    assert assert_whole(rig, others) == AFTER
    record = rig.record()
    assert (record.running, record.failures) == (None, 0)
    files = {file.name for file in rig.home.versions.iterdir()}
    assert files == {f"{entry.version}.npz" for entry in rig.served().published.versions}
    assert not list(rig.home.root.glob(".*.tmp"))
    store = Store(rig.home)
    changes = store.price_changes(NAME, "g.h100.8", region="east-1", terms=("on-demand",))
    store.close()
    assert [(c.change.before_nanos, c.change.after_nanos) for c in changes] == [(BEFORE, AFTER)]


@pytest.mark.parametrize("stage", STAGES)
def test_a_refresh_killed_at_a_stage(refreshed: Rig, stage: str) -> None:
    others = prepare(refreshed)

    assert Doomed(refreshed.home, refreshed.url, Doom(stage=stage)).wait() == -9

    assert assert_whole(refreshed, others) == BEFORE
    if stage != "start":
        assert refreshed.record().running is not None
    assert_recovers(refreshed, others)
    assert (KILLED in refreshed.record().last_error) == (stage not in ("start", "publish"))


def writes_of_a_refresh(rig: Rig) -> int:
    """Writes to the disk of a refresh that goes well."""
    rig.source.price_factor = 1.0000001
    counting = Doomed(rig.home, rig.url)
    assert counting.last()[0] == "done"
    return counting.writes


def killed_at_writes(rig: Rig, at: list[int]) -> None:
    """Kills one refresh after another, each at a write, and one that goes well at the end."""
    others, died = prepare(rig), 0
    for write in at:
        died += Doomed(rig.home, rig.url, Doom(write=write)).wait() == -9
        assert_whole(rig, others)
    assert died >= len(at) // 2
    assert_recovers(rig, others)


def test_refreshes_killed_at_some_of_their_writes(refreshed: Rig) -> None:
    killed_at_writes(refreshed, [1, 4, 9, 14, 19, 24])


@pytest.mark.long
def test_refreshes_killed_at_every_one_of_their_writes(refreshed: Rig) -> None:
    for write in range(1, 40):
        others = prepare(refreshed)
        Doomed(refreshed.home, refreshed.url, Doom(write=write)).wait()
        assert_whole(refreshed, others)


def killed_at_random(rig: Rig, count: int, seed: int) -> None:
    """Kills refreshes at moments chosen at random over the time that one takes."""
    chance, others = random.Random(seed), prepare(rig)
    started = time.monotonic()
    assert Doomed(rig.home, rig.url, Doom(stage="publish")).wait() == -9
    usual = time.monotonic() - started
    for _ in range(count):
        doomed = Doomed(rig.home, rig.url)
        time.sleep(chance.uniform(0, usual))
        doomed.kill()
        assert_whole(rig, others)
    assert_recovers(rig, others)


def test_refreshes_killed_at_random_moments(refreshed: Rig) -> None:
    killed_at_random(refreshed, 5, seed=1)


@pytest.mark.long
def test_a_hundred_refreshes_killed_at_random_moments(refreshed: Rig) -> None:
    killed_at_random(refreshed, 100, seed=2)
