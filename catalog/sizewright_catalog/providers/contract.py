"""What a provider promises to a refresh, and what it is given.

The engine calls `scopes` once and `fetch` for each scope, several at a time in threads. It retries
a scope that fails, keeps the last good rows of one that goes on failing, checks every row, and
swaps the version. A provider only asks its source and turns answers into rows.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from sizewright_catalog.rows import OfferRow, TypeRow

#: The one scope of a provider that is fetched whole.
WHOLE = "all"


class SourceError(Exception):
    """A source that did not give what was asked. The text is for the status: say who and what."""


class NotConfigured(SourceError):
    """No SDK, no credentials, no project: nothing was asked. Not retried; say what to set."""


class Refused(SourceError):
    """The source knows who asks and says no, such as for a missing permission. Not retried."""


class Garbage(SourceError):
    """An answer that is not what the API promises, or a page that breaks off. Retried once."""


class Unavailable(SourceError):
    """The source is away, too slow, or answers with its own errors. Retried with backoff."""


class Throttled(Unavailable):
    """The source asks for patience; `retry_after_seconds` where it says how much, else 0."""

    def __init__(self, text: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class Cancelled(Exception):
    """The refresh was cancelled, or its deadline passed; providers let it through."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a provider is refreshed, and how long anything may take, in seconds.

    `jitter` is the share of `every_seconds` by which runs are spread, at most 0.5. `concurrency`
    is how many scopes are fetched at once, `attempts` how often one is tried in one refresh.
    """

    every_seconds: float
    jitter: float = 0.1
    deadline_seconds: float = 1800.0
    call_timeout_seconds: float = 30.0
    concurrency: int = 4
    attempts: int = 5


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, as many as one answer of the source holds: at most a few thousand."""

    types: Sequence[TypeRow] = ()
    offers: Sequence[OfferRow] = ()


def utc_now() -> datetime:
    """The time, UTC."""
    return datetime.now(tz=UTC)


@dataclass(slots=True)
class FetchContext:
    """What a fetch may use. Threads share it.

    `settings` are the provider's own, from the environment: SIZEWRIGHT_AWS_ENDPOINT_URL is
    `settings["endpoint_url"]` of "aws". `seconds_left` counts down to the refresh's deadline.
    """

    settings: Mapping[str, str]
    call_timeout_seconds: float
    seconds_left: Callable[[], float]
    cancelled: threading.Event = field(default_factory=threading.Event)
    now: Callable[[], datetime] = utc_now
    alive: Callable[[], None] = lambda: None
    #: Set by a provider whose settings keep it from asking for everything in its scopes: what does
    #: not come says nothing then, and its last good rows stay.
    filtered: bool = False
    dropped: Counter[str] = field(default_factory=Counter)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Call it between answers of the source: a fetch that is silent for minutes is given up.

        Raises Cancelled when there is no point left.
        """
        self.alive()
        if self.cancelled.is_set():
            raise Cancelled("cancelled")
        if self.seconds_left() <= 0:
            raise Cancelled("the deadline of the refresh passed")

    def timeout(self) -> float:
        """Seconds that one call to the source may take now. Raises Cancelled."""
        self.check()
        return min(self.call_timeout_seconds, self.seconds_left())

    def drop(self, reason: str, count: int = 1) -> None:
        """Counts rows that a provider leaves out on purpose, such as Windows prices."""
        with self._counting:
            self.dropped[reason] += count


class Provider(Protocol):
    """One source of instance types and offers. Made anew for each refresh."""

    @property
    def name(self) -> str:
        """Lower-kebab, as in offers' names."""
        ...

    @property
    def schedule(self) -> Schedule:
        """When and within what limits it is refreshed."""
        ...

    def scopes(self, context: FetchContext) -> Sequence[str]:
        """What is fetched apart and may fail apart: the regions, or (WHOLE,).

        The offers of a scope other than WHOLE are those whose `region` is the scope. Raises
        SourceError.
        """
        ...

    def fetch(self, scope: str, context: FetchContext) -> Iterator[Page]:
        """The rows of one scope, page by page, each used up before the next is asked for.

        A type comes before its offers, or with them; of a type that does not come the last good
        row stays.

        May be called again after it failed; starts over then. A type may come from several scopes.
        Raises SourceError, and anything else for an answer it cannot read.
        """
        ...
