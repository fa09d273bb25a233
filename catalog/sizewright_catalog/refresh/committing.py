"""From a finished fetch to the version that is served: check, merge, write, commit, publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sizewright_catalog.columns import merge
from sizewright_catalog.diff import Difference, OfferChanges
from sizewright_catalog.home import Home
from sizewright_catalog.locks import commit_lock
from sizewright_catalog.providers.contract import WHOLE
from sizewright_catalog.published import ProviderRecord, Served, VersionEntry, serve_from
from sizewright_catalog.refresh.events import Event
from sizewright_catalog.refresh.fetching import Fetched
from sizewright_catalog.refresh.gate import Verdict
from sizewright_catalog.refresh.merging import LastGood, judge, next_metadata, next_version
from sizewright_catalog.refresh.quarantine import Quarantine
from sizewright_catalog.snapshot import Arrays, content_hash, read_text, write_snapshot
from sizewright_catalog.store import Store, VersionConflict

#: How often a version is merged anew because another home of the store was quicker.
COMMIT_ATTEMPTS = 5


class RefreshFailed(Exception):
    """A refresh that did not go in; the text is for the status."""


@dataclass(frozen=True, slots=True)
class Committing:
    """Puts what was fetched of a provider in, in one step.

    `at` is called with each stage before it begins, and raises what is to stop the refresh there.
    `succeeded` makes the provider's record from its checks.
    """

    home: Home
    store: Store
    provider: str
    record: ProviderRecord
    now: float
    accept_changes: bool
    at: Callable[[str], None]
    succeeded: Callable[[Verdict, Quarantine], ProviderRecord]

    def run(self, fresh: Arrays, fetched: Fetched) -> Event:
        """Swaps; anew when another home swapped meanwhile. The last event.

        Raises StoreError and RefreshFailed; then nothing has changed.
        """
        with commit_lock(self.home):
            for _ in range(COMMIT_ATTEMPTS):
                # Also what a refresh that was killed had committed and not yet published.
                self.store.publish()
                try:
                    return self._commit(serve_from(self.home), fresh, fetched)
                except VersionConflict:
                    continue
        raise RefreshFailed("other homes of the store swapped versions all the time")

    def _commit(self, base: Served, fresh: Arrays, fetched: Fetched) -> Event:
        self.at("check")
        last = LastGood.of(base.catalog, self.provider)
        verdict = self._judge(fresh, last, fetched)
        self.at("merge")
        complete = not fetched.failed and not fetched.filtered
        whole = WHOLE in fetched.scopes
        arrays = next_version(fresh, verdict, last, complete=complete, whole=whole)
        # Its copies of the last good rows are as large as all that came; nothing needs them now.
        last = last.without_rows()
        difference = Difference(base.catalog.arrays, arrays)
        quarantine = Quarantine()
        quarantine.add(fetched.quarantine)
        quarantine.add(verdict.quarantine)
        record = self.succeeded(verdict, quarantine)
        version = content_hash(arrays)
        if version == base.catalog.version:
            self.store.record(record)
        else:
            self._swap(base, last, fetched, arrays, difference, record, version)
        self.at("publish")
        self.store.publish()
        self.store.prune()
        changes = [one for one in difference.changes() if one.provider == self.provider]
        return self._done(record, arrays, version, changes)

    def _judge(self, fresh: Arrays, last: LastGood, fetched: Fetched) -> Verdict:
        scopes = fetched.scopes
        return judge(
            fresh,
            merge(fetched.refused)[0],
            last,
            None if WHOLE in scopes else scopes,
            held_since=self.record.held_since,
            now=self.now,
            accept=self.accept_changes,
            filtered=fetched.filtered,
        )

    def _swap(
        self,
        base: Served,
        last: LastGood,
        fetched: Fetched,
        arrays: Arrays,
        difference: Difference,
        record: ProviderRecord,
        version: str,
    ) -> None:
        self.at("write")
        self._write(arrays, last, dict(fetched.dropped), version)
        entry = VersionEntry(
            sequence=base.published.sequence + 1,
            version=version,
            swapped_at=self.now,
            offer_count=len(arrays["offer_type"]),
            type_count=len(arrays["type_vcpus"]),
            reason=f"refresh of {self.provider}",
        )
        # At the first refresh all offers are new to the history, which begins with it.
        known = self.record.last_success is not None
        changes = difference.price_changes(self.provider, coming_and_going=known)
        self.at("commit")
        self.store.commit(entry, record, changes)

    def _write(self, arrays: Arrays, last: LastGood, dropped: dict[str, int], version: str) -> None:
        moment = datetime.fromtimestamp(self.now, tz=UTC).isoformat(timespec="seconds")
        meta = next_metadata(arrays, last, dropped, moment)
        try:
            write_snapshot(self.home.version(version), arrays, meta)
        except OSError as error:
            raise RefreshFailed(f"the version cannot be written: {error}") from error

    def _done(
        self, record: ProviderRecord, arrays: Arrays, version: str, changes: list[OfferChanges]
    ) -> Event:
        mine = arrays["type_provider"] == read_text(arrays["providers"]).index(self.provider)
        held = sum(one.count for one in record.held_back)
        words = [f"{held:,} rows held back or marked"] if held else []
        words += [failures(record.failed_scopes)] if record.failed_scopes else []
        event = Event(self.provider, "done", "; ".join(words) or "all went in")
        return replace(
            event,
            offers=int(mine[arrays["offer_type"]].sum()),
            types=int(mine.sum()),
            version=version,
            held_back=record.held_back,
            failed_scopes=record.failed_scopes,
            changes=changes[0] if changes else None,
        )


def failures(failed: dict[str, str]) -> str:
    """Scopes that failed, by what they failed of."""
    by_reason: dict[str, list[str]] = {}
    for scope, reason in sorted(failed.items()):
        by_reason.setdefault(reason, []).append(scope)
    words = []
    for reason, scopes in list(by_reason.items())[:3]:
        more = f" and {len(scopes) - 3} more" if len(scopes) > 3 else ""
        named = f"{', '.join(scopes[:3])}{more}: "
        words.append(reason if scopes == [WHOLE] else f"{named}{reason}")
    return "; ".join(words)
