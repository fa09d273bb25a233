"""Starts refreshes when they are due, each in a process of its own; one thread of the server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from sizewright_catalog.home import Home
from sizewright_catalog.published import PublishedError, read_published
from sizewright_catalog.refresh.process import RefreshProcess
from sizewright_catalog.refresh.schedule import is_due

log = logging.getLogger("sizewright.refresh")

#: How often the schedule is looked at, in seconds.
LOOK_SECONDS = 1.0
#: A provider is not started again sooner, whatever its status says: it may not be writable.
SHORTEST_PAUSE = 60.0
#: Refreshes that run at once.
AT_ONCE = 2

Start = Callable[[str], RefreshProcess]


class Scheduler:
    """Keeps providers fresh. Several servers of a home may each have one: locks keep them apart."""

    def __init__(
        self,
        home: Home,
        providers: Sequence[str],
        store_url: str | None,
        *,
        start: Start | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.home, self.providers = home, tuple(providers)
        self._start = start or (lambda name: RefreshProcess(home, name, store_url=store_url))
        self._now = now
        self._running: dict[str, RefreshProcess] = {}
        self._ended_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def run_in_background(self) -> None:
        """Looks at the schedule until it is closed."""
        if self.providers:
            threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """Cancels what runs. What is served stays as it is."""
        self._closed.set()
        with self._lock:
            for process in self._running.values():
                process.cancel()

    def look(self) -> list[str]:
        """Starts what is due; the names of what was started."""
        try:
            published = read_published(self.home)
        except PublishedError as error:
            log.error("the schedule cannot be read", extra={"reason": str(error)})
            published = None
        records = {} if published is None else published.providers
        started = []
        for name in self.providers:
            if self._may_start(name) and is_due(records.get(name), self._now()):
                self._begin(name)
                started.append(name)
        return started

    def _may_start(self, name: str) -> bool:
        with self._lock:
            busy = name in self._running or len(self._running) >= AT_ONCE
        ended = self._ended_at.get(name)
        paused = ended is not None and time.monotonic() - ended < SHORTEST_PAUSE
        return not (busy or paused or self._closed.is_set())

    def _begin(self, name: str) -> None:
        try:
            process = self._start(name)
        except OSError as error:
            self._ended_at[name] = time.monotonic()
            log.error("refresh cannot start", extra={"provider": name, "reason": str(error)})
            return
        with self._lock:
            self._running[name] = process
        log.info("refresh started", extra={"provider": name, "pid": process.pid})
        threading.Thread(target=self._attend, args=(name, process), daemon=True).start()

    def _attend(self, name: str, process: RefreshProcess) -> None:
        """Listens to a refresh until it ends."""
        for event in process.events():
            if event.is_last:
                said = {"provider": name, "stage": event.stage, "reason": event.message}
                log.info("refresh ended", extra=said | {"version": event.version})
        with self._lock:
            self._running.pop(name, None)
        self._ended_at[name] = time.monotonic()

    def _run(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            self.look()
