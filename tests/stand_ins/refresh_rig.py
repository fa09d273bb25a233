"""A home, a source that stands in for a cloud, and refreshes from the one into the other."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.columns import merge, select
from sizewright_catalog.home import Home
from sizewright_catalog.published import (
    HeldBack,
    ProviderRecord,
    Served,
    VersionEntry,
    serve_from,
)
from sizewright_catalog.refresh.clock import Clock, SystemClock
from sizewright_catalog.refresh.events import Event
from sizewright_catalog.refresh.run import Options, Refresh
from sizewright_catalog.snapshot import content_hash, metadata, write_snapshot
from sizewright_catalog.store import Store
from stand_in_provider import NAME, StandIn
from stand_in_source import Source, serving

#: The provider of a seeded home.
OTHER = "nebius"
OTHER_RECORD = ProviderRecord(OTHER)
#: Offers of the stand-in: 24 types, 3 regions, 2 terms.
ALL_OFFERS = 24 * 3 * 2


class FakeClock:
    """Time that passes only when someone sleeps, or a test says so."""

    def __init__(self, start: float = 1_795_500_000.0) -> None:
        self.wall, self.steady = start, 0.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def sleep(self, seconds: float, until: threading.Event) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.steady += seconds
            self.wall += seconds

    def passes(self, seconds: float) -> None:
        """Lets time pass."""
        self.steady += seconds
        self.wall += seconds


@dataclass
class Rig:
    """Refreshes the stand-in provider into a home of its own."""

    home: Home
    source: Source
    url: str
    clock: Clock = field(default_factory=SystemClock)
    provider: Any = field(default_factory=StandIn)
    store_url: str | None = None
    events: list[Event] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def refresh(self, **given: Any) -> Event:
        """One refresh; its last event."""
        options = Options(
            settings={"endpoint_url": self.url},
            store_url=self.store_url,
            clock=self.clock,
            spread=random.Random(1),
            **given,
        )
        self.events.clear()
        refresh = Refresh(self.home, self.provider, options, self.events.append, self.cancelled)
        return refresh.run()

    def served(self) -> Served:
        """What a reader that starts now would serve."""
        return serve_from(self.home)

    def record(self) -> ProviderRecord:
        """What a reader knows of the provider."""
        return self.served().published.providers[NAME]

    def held(self) -> dict[str, int]:
        """What the last refresh held back, by reason."""
        return {one.reason: one.count for one in self.record().held_back}


@contextmanager
def rig(folder: Path, *, seeded: bool = False, **given: Any) -> Iterator[Rig]:
    """A rig over a source that serves while the context is open.

    A seeded one starts from a small version in the place of the bundled one: less to merge.
    """
    source, home = Source(), Home(folder / "home")
    if seeded:
        seed(home)
    with serving(source) as url:
        yield Rig(home, source, url, **given)


def seed(home: Home) -> None:
    """Makes the bundled offers of one small provider the first version of a home."""
    catalog = Catalog.load()
    store = Store(home)
    few = catalog.types.provider == catalog.providers.index(OTHER)
    arrays, _ = merge([select(catalog.arrays, few[catalog.offers.type], few)])
    version = content_hash(arrays)
    write_snapshot(home.version(version), arrays, metadata(arrays, {}, "2026-11-24"))
    count = len(arrays["offer_type"])
    store.commit(VersionEntry(1, version, 0.0, count, int(few.sum()), "seed"), OTHER_RECORD, [])
    store.publish()
    store.close()


def prices(catalog: Catalog, provider: str = NAME) -> dict[str, int]:
    """A provider's offers by name, in nano-dollars; empty where it has none."""
    if provider not in catalog.providers:
        return {}
    mine = catalog.types.provider == catalog.providers.index(provider)
    at = np.nonzero(mine[catalog.offers.type])[0]
    offers = (catalog.offer(int(i)) for i in at)
    return {offer.name: offer.price.per_hour_nanos for offer in offers}


def held_reasons(held: tuple[HeldBack, ...]) -> set[str]:
    """The reasons of what was held back."""
    return {one.reason for one in held}
