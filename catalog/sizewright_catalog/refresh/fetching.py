"""Fetches the scopes of a provider: several at once, each tried again, none waited for for ever.

Scopes run in threads. A thread that hangs in a call without a time-out cannot be stopped; it is
given up, its scope fails, and it ends with the process.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import tenacity

from sizewright_catalog.providers.contract import (
    Cancelled,
    FetchContext,
    Garbage,
    NotConfigured,
    Provider,
    Refused,
    SourceError,
    Throttled,
    Unavailable,
)
from sizewright_catalog.refresh.clock import Clock
from sizewright_catalog.refresh.collecting import Collecting, LastType
from sizewright_catalog.refresh.quarantine import Quarantine
from sizewright_catalog.snapshot import Arrays

#: Waits between attempts at a scope, in seconds: doubling from the first up to the longest.
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
#: Garbage is tried once more: a connection may have broken off.
GARBAGE_ATTEMPTS = 2
#: A scope from which nothing has come for so many call time-outs is given up.
STALLED_CALLS = 4.0
#: How often hanging scopes are looked for, in seconds of real time.
LOOK_SECONDS = 0.1


@dataclass(slots=True)
class Fetched:
    """What came: columns by scope, which scopes they are, and what did not come."""

    parts: dict[str, Arrays] = field(default_factory=dict)
    refused: list[Arrays] = field(default_factory=list)
    scopes: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    quarantine: Quarantine = field(default_factory=Quarantine)
    dropped: Counter[str] = field(default_factory=Counter)
    filtered: bool = False


class Progress(Protocol):
    """Called whenever something came."""

    def __call__(self, done: int, scopes: int, offers: int, types: int) -> None:
        """How many scopes are finished of how many, and how much has come."""
        ...


class Fetching:
    """One fetch of a provider."""

    def __init__(
        self,
        provider: Provider,
        settings: dict[str, str],
        clock: Clock,
        cancelled: threading.Event,
        last_type: LastType,
        progress: Progress,
    ) -> None:
        self.provider, self.clock, self.cancelled = provider, clock, cancelled
        self.settings, self._last_type, self._progress = settings, last_type, progress
        self._until = clock.monotonic() + provider.schedule.deadline_seconds
        self._ended: queue.SimpleQueue[_Scope] = queue.SimpleQueue()
        self._running: list[_Scope] = []
        self._finished = 0
        self._came = [0, 0]

    def run(self) -> Fetched:
        """Fetches every scope.

        Raises SourceError when the scopes cannot be told, and Cancelled when it is cancelled.
        """
        listing = _Scope(self, "")
        listing.start(lambda: listing.tried(self._list))
        self._wait([listing])
        if listing.error is not None:
            raise listing.error
        fetched = Fetched()
        if not listing.scopes:
            raise Unavailable("the source lists nothing that could be fetched")
        self._scope_count = len(listing.scopes)
        waiting = deque(listing.scopes)
        while waiting or self._running:
            while waiting and len(self._running) < self.provider.schedule.concurrency:
                self._start(waiting.popleft())
            self._take(fetched)
        return fetched

    def seconds_left(self) -> float:
        """Until the deadline of the whole refresh."""
        return self._until - self.clock.monotonic()

    def came(self, offers: int, types: int) -> None:
        """Counts what a page brought."""
        self._came[0] += offers
        self._came[1] += types
        self._progress(self._finished, self._scope_count, *self._came)

    def _list(self, scope: _Scope) -> None:
        scope.scopes = tuple(self.provider.scopes(scope.context))

    def _start(self, name: str) -> None:
        scope = _Scope(self, name)
        self._running.append(scope)
        scope.start(lambda: scope.tried(self._fetch))

    def _fetch(self, scope: _Scope) -> None:
        """One attempt; what an earlier one brought is forgotten."""
        collecting = Collecting(self.provider.name, scope.name, self._last_type)
        for page in self.provider.fetch(scope.name, scope.context):
            scope.context.check()
            collecting.take(page)
            self.came(len(page.offers), len(page.types))
        scope.context.check()
        scope.part, scope.refused = collecting.arrays(), collecting.refused()
        scope.quarantine = collecting.quarantine

    def _take(self, fetched: Fetched) -> None:
        """Takes the next scope that ended or hangs."""
        for scope in self._wait(self._running):
            self._running.remove(scope)
            self._finished += 1
            fetched.dropped += scope.context.dropped
            fetched.filtered |= scope.context.filtered
            if scope.error is not None:
                fetched.failed[scope.name] = str(scope.error)
            else:
                fetched.parts[scope.name] = scope.part
                fetched.scopes.add(scope.name)
                fetched.refused.append(scope.refused)
                fetched.quarantine.add(scope.quarantine)
        self._progress(self._finished, self._scope_count, *self._came)

    def _wait(self, scopes: list[_Scope]) -> list[_Scope]:
        """Those of some running scopes that have ended; what hangs ends with a failure.

        Raises Cancelled.
        """
        while True:
            if self.cancelled.is_set():
                for scope in scopes:
                    scope.context.cancelled.set()
                raise Cancelled("cancelled")
            hanging = [scope for scope in scopes if scope.hangs()]
            if hanging:
                return hanging
            try:
                ended = self._ended.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if ended in scopes:
                return [ended]

    def end(self, scope: _Scope) -> None:
        """Called by a scope's thread when it is through."""
        self._ended.put(scope)


class _Scope:
    """One scope being fetched, in a thread of its own."""

    def __init__(self, fetching: Fetching, name: str) -> None:
        self.fetching, self.name = fetching, name
        self.context = FetchContext(
            settings=fetching.settings,
            call_timeout_seconds=fetching.provider.schedule.call_timeout_seconds,
            seconds_left=fetching.seconds_left,
            alive=self.seen,
        )
        self._last_sign = fetching.clock.monotonic()
        self.part: Arrays = {}
        self.refused: Arrays = {}
        self.scopes: tuple[str, ...] = ()
        self.quarantine = Quarantine()
        self.error: SourceError | None = None
        self._sleeping = False

    def start(self, work: Callable[[], None]) -> None:
        """Begins; the thread tells its end by itself."""
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def seen(self) -> None:
        """Something came."""
        self._last_sign = self.fetching.clock.monotonic()

    def hangs(self) -> bool:
        """Whether it is to be given up; it fails then, whatever its thread still does."""
        clock, schedule = self.fetching.clock, self.fetching.provider.schedule
        silent = clock.monotonic() - self._last_sign
        limit = STALLED_CALLS * schedule.call_timeout_seconds
        late = self.fetching.seconds_left() < -schedule.call_timeout_seconds
        if not late and (self._sleeping or silent <= limit):
            return False
        self.context.cancelled.set()
        self.error = Unavailable(f"nothing came for {silent:.0f} s: given up")
        return True

    def tried(self, work: Callable[[_Scope], None]) -> None:
        """Does the work, again where that may help. Raises SourceError or Cancelled."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_help),
            stop=self._enough,
            wait=_wait_seconds,
            sleep=self._sleep,
            reraise=True,
        )
        retrying(self._attempt, work)

    def _attempt(self, work: Callable[[_Scope], None]) -> None:
        self.context.check()
        self.seen()
        try:
            work(self)
        except (SourceError, Cancelled):
            raise
        except Exception as error:
            words = f"an answer that cannot be read: {type(error).__name__}: {error}"
            raise Garbage(words) from error

    def _enough(self, state: tenacity.RetryCallState) -> bool:
        """Whether to stop: tried often enough, or no time left for the wait and another try."""
        error = state.outcome.exception() if state.outcome else None
        most = self.fetching.provider.schedule.attempts
        most = min(most, GARBAGE_ATTEMPTS) if isinstance(error, Garbage) else most
        late = state.upcoming_sleep >= self.fetching.seconds_left()
        return state.attempt_number >= most or late

    def _sleep(self, seconds: float) -> None:
        self._sleeping = True
        self.fetching.clock.sleep(seconds, self.context.cancelled)
        self.seen()
        self._sleeping = False

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except SourceError as error:
            self.error = self.error or error
        except Cancelled as error:
            self.error = self.error or Unavailable(str(error))
        finally:
            self.fetching.end(self)


def _may_help(error: BaseException) -> bool:
    """Whether trying again may help."""
    hopeless = isinstance(error, (NotConfigured, Refused))
    return isinstance(error, SourceError) and not hopeless


_backoff = tenacity.wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)


def _wait_seconds(state: tenacity.RetryCallState) -> float:
    """Doubling and spread at random, but never less than the source asked for."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, Throttled) else 0.0
    return max(asked, _backoff(state))
