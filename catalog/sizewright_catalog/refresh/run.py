"""One refresh of one provider, from its lock to the published version.

Each stage leaves the last good version in place until the next has it whole; a refresh that is
killed anywhere has changed nothing a reader sees, or everything.
"""

from __future__ import annotations

import random
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sizewright_catalog.columns import merge
from sizewright_catalog.home import Home
from sizewright_catalog.locks import Timeout, commit_lock, refresh_lock
from sizewright_catalog.providers.contract import Cancelled, Provider, SourceError
from sizewright_catalog.published import (
    ProviderRecord,
    PublishedError,
    read_published,
    serve_from,
)
from sizewright_catalog.refresh import schedule
from sizewright_catalog.refresh.clock import Clock, SystemClock
from sizewright_catalog.refresh.committing import Committing, RefreshFailed, failures
from sizewright_catalog.refresh.events import Event
from sizewright_catalog.refresh.fetching import Fetched, Fetching
from sizewright_catalog.refresh.gate import Verdict
from sizewright_catalog.refresh.liveness import this_process
from sizewright_catalog.refresh.merging import LastGood
from sizewright_catalog.refresh.quarantine import Quarantine
from sizewright_catalog.refresh.status import write_down
from sizewright_catalog.snapshot import SnapshotError
from sizewright_catalog.store import Store, StoreError

FORESEEN = (SourceError, RefreshFailed, StoreError, SnapshotError, OSError)


@dataclass(frozen=True, slots=True)
class Options:
    """How a refresh is run. `settings` are the provider's own."""

    settings: dict[str, str] = field(default_factory=dict)
    store_url: str | None = None
    accept_changes: bool = False
    clock: Clock = field(default_factory=SystemClock)
    spread: random.Random = field(default_factory=random.Random)


class Refresh:
    """One refresh of one provider into a home. `tell` is called from several threads."""

    def __init__(
        self,
        home: Home,
        provider: Provider,
        options: Options,
        tell: Callable[[Event], None],
        cancelled: threading.Event | None = None,
    ) -> None:
        self.home, self.provider, self.options = home, provider, options
        self.name, self.clock = provider.name, options.clock
        self.cancelled = cancelled or threading.Event()
        self._tell = tell
        self._record = ProviderRecord(self.name)

    def run(self) -> Event:
        """Refreshes; returns the last event, which has been told. Never raises for its sources.

        What goes wrong is in the event, and in the provider's status wherever that can be written.
        """
        try:
            self.home.make()
            with refresh_lock(self.home, self.name):
                last = self._guarded()
        except Timeout:
            words = "another refresh of this provider runs"
            last = self._event("failed", words, already_running=True)
        except OSError as error:
            last = self._event("failed", f"the home cannot be written: {error}")
        self._tell(last)
        return last

    def _guarded(self) -> Event:
        """The refresh under its lock, with its failures written down."""
        try:
            return self._refresh()
        except Cancelled:
            write_down(self.home, self.options.store_url, replace(self._record, running=None))
            return self._event("cancelled", "cancelled; the last good version stays")
        except Timeout:
            reason = "another process has kept the catalog locked for minutes"
        except FORESEEN as error:
            reason = str(error) or type(error).__name__
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            reason = f"unexpected {type(error).__name__}: {error}"
        now, plan = self.clock.now(), self.provider.schedule
        record = schedule.failed(self._record, plan, now, reason, self.options.spread)
        write_down(self.home, self.options.store_url, record)
        return self._event("failed", reason)

    def _refresh(self) -> Event:
        self._at("start")
        self._record = self._published_record()
        store = Store(self.home, self.options.store_url)
        try:
            self._begin(store)
            self._at("fetch")
            fetched = self._fetch()
            fresh, _ = merge(list(fetched.parts.values()))
            fetched.parts.clear()
            committing = Committing(
                self.home,
                store,
                self.name,
                self._record,
                self.clock.now(),
                self.options.accept_changes,
                self._at,
                lambda verdict, quarantine: self._succeeded(fetched, verdict, quarantine),
            )
            return committing.run(fresh, fetched)
        finally:
            store.close()

    def _published_record(self) -> ProviderRecord:
        """What readers know of the provider, for when the store is broken."""
        try:
            published = read_published(self.home)
        except PublishedError:
            return self._record
        known = {} if published is None else published.providers
        return known.get(self.name, self._record)

    def _begin(self, store: Store) -> None:
        """Writes down that this process refreshes now, and takes up what a killed one left."""
        with commit_lock(self.home):
            self._record = schedule.begun(
                store.read().providers.get(self.name, self._record),
                self.provider.schedule,
                this_process(self.clock.now()),
                self.options.spread,
            )
            store.record(self._record)
            store.publish()

    def _fetch(self) -> Fetched:
        """Raises SourceError, or RefreshFailed when no scope came."""
        last = LastGood.of(serve_from(self.home).catalog, self.name)
        fetched = Fetching(
            self.provider,
            self.options.settings,
            self.clock,
            self.cancelled,
            last.type_row,
            self._progress,
        ).run()
        if not fetched.parts:
            raise RefreshFailed(failures(fetched.failed))
        return fetched

    def _succeeded(
        self, fetched: Fetched, verdict: Verdict, quarantine: Quarantine
    ) -> ProviderRecord:
        """The record after a refresh that went in, whole or in part."""
        now, plan, spread = self.clock.now(), self.provider.schedule, self.options.spread
        record = replace(
            self._record,
            last_success=now,
            failures=0,
            next_try=schedule.after_success(plan, now, spread),
            running=None,
            held_back=quarantine.told(),
            failed_scopes=dict(sorted(fetched.failed.items())),
            held_since=verdict.held_since,
        )
        if not fetched.failed:
            return record
        count = self._record.failures + 1
        return replace(
            record,
            failures=count,
            last_error=failures(fetched.failed),
            last_error_at=now,
            next_try=schedule.after_failure(plan, now, count, spread),
        )

    def _at(self, stage: str) -> None:
        """Tells the stage that begins. Raises Cancelled."""
        self._tell(self._event(stage))
        if self.cancelled.is_set():
            raise Cancelled("cancelled")

    def _progress(self, done: int, scopes: int, offers: int, types: int) -> None:
        event = Event(self.name, "fetch", done_scopes=done, scopes=scopes)
        self._tell(replace(event, offers=offers, types=types))

    def _event(self, stage: str, message: str = "", *, already_running: bool = False) -> Event:
        return Event(self.name, stage, message, already_running=already_running)
