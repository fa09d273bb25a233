"""The calls that answer with a stream: a refresh as it runs, and the catalog as it changes."""

from __future__ import annotations

import logging
import os
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from sizewright.v1 import catalog_service_pb2 as pb
from sizewright_catalog.diff import Difference
from sizewright_catalog.home import Home, default_home
from sizewright_catalog.providers import registered
from sizewright_catalog.refresh.events import Event
from sizewright_catalog.refresh.process import RefreshProcess
from sizewright_server import failures
from sizewright_server.estimation.problems import Violation
from sizewright_server.failures import CallFailed
from sizewright_server.refreshing.live import LiveCatalog
from sizewright_server.service import Sizing
from sizewright_server.wire.machines import moment
from sizewright_server.wire.statuses import (
    failed_messages,
    provider_messages,
    quarantine_messages,
)
from sizewright_server.wire.versions import changes_message
from sizewright_server.wire.violations import RequestInvalid, one_of

log = logging.getLogger("sizewright.calls")

#: How often a stream looks whether its caller is still there, in seconds.
LOOK_SECONDS = 0.2
#: Events that wait for a slow caller; what does not fit is progress, and later progress comes.
WAITING_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """What a stream is given: the catalog, which providers are set up, and when to stop."""

    live: LiveCatalog
    providers: Sequence[str]
    gone: threading.Event

    @property
    def is_over(self) -> bool:
        """Whether nobody listens any more."""
        return self.gone.is_set() or self.live.closed


@dataclass(frozen=True, slots=True)
class Stream:
    """One streaming call: its request and response types and what answers it."""

    request: type[Message]
    response: type[Message]
    answer: Callable[[Call, Any], Iterator[Message]]
    changes_state: bool = False


def refresh(call: Call, request: pb.RefreshCatalogRequest) -> Iterator[Message]:
    """Refreshes providers and tells how it goes; cancels them when nobody listens any more.

    Raises CallFailed and RequestInvalid before anything is started.
    """
    home = call.live.app.home
    if home is None:
        raise failures.fixed_catalog()
    names = _providers(call, request)
    events: queue.Queue[Event] = queue.Queue(WAITING_EVENTS)
    started = [
        RefreshProcess(
            home,
            name,
            store_url=call.live.app.store_url,
            accept_changes=request.accept_changes,
        )
        for name in names
    ]
    for process in started:
        threading.Thread(target=_forward, args=(process, events), daemon=True).start()
    try:
        yield from _told(call, home, events, len(started))
    finally:
        for process in started:
            process.cancel()


def _providers(call: Call, request: pb.RefreshCatalogRequest) -> list[str]:
    """Raises RequestInvalid naming every provider that is not there."""
    known = sorted(registered())
    names = list(dict.fromkeys(request.providers)) or list(call.providers)
    wrong = [
        Violation(f"providers.{i}", one_of("provider", name, known))
        for i, name in enumerate(request.providers)
        if name not in known
    ]
    if not names:
        there = ", ".join(known) or "none"
        words = f"names none, and none is set up to be refreshed; there are: {there}"
        wrong.append(Violation("providers", words))
    if wrong:
        raise RequestInvalid(wrong)
    return names


def _forward(process: RefreshProcess, events: queue.Queue[Event]) -> None:
    for event in process.events():
        if event.is_last or event.stage != "fetch" or not events.full():
            events.put(event)


def _told(
    call: Call, home: Home, events: queue.Queue[Event], running: int
) -> Iterator[pb.RefreshCatalogResponse]:
    alone = running == 1
    while running and not call.is_over:
        try:
            event = events.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            continue
        running -= event.is_last
        if event.already_running and alone:
            raise failures.already_running(f"{event.provider}: {event.message}")
        if event.is_last:
            # What a caller asks next is answered from what it was just told of.
            call.live.look(home)
        yield _message(event)


def _message(event: Event) -> pb.RefreshCatalogResponse:
    return pb.RefreshCatalogResponse(
        provider=event.provider,
        stage=event.stage,
        done_scope_count=event.done_scopes,
        scope_count=event.scopes,
        offer_count=event.offers,
        instance_type_count=event.types,
        message=event.message,
        version=event.version,
        quarantines=quarantine_messages(event.held_back),
        failed_scopes=failed_messages(event.failed_scopes),
        changes=None if event.changes is None else changes_message(event.changes),
    )


def watch(call: Call, request: pb.WatchCatalogRequest) -> Iterator[Message]:
    """The catalog as it is, and again whenever it changes."""
    before: Sizing | None = None
    while not call.is_over:
        seen, app = call.live.changes, call.live.app
        yield _now(app, before)
        before = app
        while not call.is_over and not call.live.wait(seen, LOOK_SECONDS):
            continue


def _now(app: Sizing, before: Sizing | None) -> pb.WatchCatalogResponse:
    message = pb.WatchCatalogResponse(
        version=app.catalog.version,
        build_time=moment(app.catalog.build_time),
        providers=provider_messages(app.catalog, app.published),
    )
    if before is not None and before.catalog.version != app.catalog.version:
        message.previous_version = before.catalog.version
        difference = Difference(before.catalog.arrays, app.catalog.arrays)
        message.changes.extend(changes_message(one) for one in difference.changes())
    return message


def dispatch_stream(
    call: Call, method: str, request: Message, *, request_id: str | None = None
) -> Iterator[Message]:
    """Answers one streaming call.

    Raises CallFailed; anything unexpected becomes INTERNAL and is logged.
    """
    known = STREAMS.get(method)
    if known is None:
        raise CallFailed("UNIMPLEMENTED", f"no stream {method}", [])
    try:
        yield from known.answer(call, request)
    except CallFailed:
        raise
    except RequestInvalid as wrong:
        raise failures.invalid(wrong.violations) from wrong
    except Exception as error:
        identity = request_id or uuid.uuid4().hex
        log.exception("call failed", extra={"method": method, "request_id": identity})
        raise failures.internal(identity) from error


_CATALOG = "/sizewright.v1.CatalogService/"

STREAMS: dict[str, Stream] = {
    f"{_CATALOG}RefreshCatalog": Stream(
        pb.RefreshCatalogRequest, pb.RefreshCatalogResponse, refresh, changes_state=True
    ),
    f"{_CATALOG}WatchCatalog": Stream(pb.WatchCatalogRequest, pb.WatchCatalogResponse, watch),
}


def embedded_call(timeout_seconds: float | None) -> Call:
    """A call in this process, over the user's own home; it is over when the time has passed."""
    store_url = os.environ.get("SIZEWRIGHT_STORE_URL") or None
    gone = threading.Event()
    if timeout_seconds is not None:
        timer = threading.Timer(timeout_seconds, gone.set)
        timer.daemon = True
        timer.start()
    return Call(LiveCatalog.of_home(default_home(), store_url), (), gone)
