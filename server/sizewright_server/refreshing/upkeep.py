"""What runs beside the server's calls: the schedule of refreshes, a shared store, metrics."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.home import Home, default_home
from sizewright_catalog.published import Published, Served, Signature, serve_from, signature
from sizewright_server.refreshing.scheduler import Scheduler
from sizewright_server.settings import ServerSettings

log = logging.getLogger("sizewright.refresh")

#: How often a shared store is looked at for what other homes brought, in seconds.
FOLLOW_SECONDS = 30.0
FOLLOW_TIMEOUT_SECONDS = 120.0


def home_of(settings: ServerSettings) -> Home:
    """The home that a server serves from."""
    return default_home() if settings.home is None else Home(settings.home)


@contextmanager
def kept_fresh(settings: ServerSettings) -> Iterator[None]:
    """Runs it all while the context is open; once for a server, however many workers it has.

    Raises OSError when the address for metrics cannot be had.
    """
    with ExitStack() as stack:
        if settings.metrics_address is not None:
            stack.enter_context(_metrics(settings, settings.metrics_address))
        home, store_url = home_of(settings), settings.store_url
        scheduler = Scheduler(home, settings.refreshed_providers, store_url)
        scheduler.run_in_background()
        stack.callback(scheduler.close)
        if store_url is not None:
            closed = threading.Event()
            stack.callback(closed.set)
            threading.Thread(target=_follow, args=(home, store_url, closed), daemon=True).start()
        yield


@contextmanager
def _metrics(settings: ServerSettings, address: tuple[str, int]) -> Iterator[None]:
    from sizewright_server.metrics import MetricsServer

    server = MetricsServer(address, _serving(settings))
    log.info("metrics", extra={"port": server.port})
    try:
        yield
    finally:
        server.close()


def _serving(settings: ServerSettings) -> Callable[[], Served]:
    """What is served now, read again only when it has changed."""
    if settings.catalog is not None:
        fixed = Served(Catalog.load(settings.catalog), Published(0))
        return lambda: fixed
    home = home_of(settings)
    held: dict[Signature | None, Served] = {}

    def served() -> Served:
        now = signature(home)
        if now not in held:
            held.clear()
            held[now] = serve_from(home)
        return held[now]

    return served


def _follow(home: Home, store_url: str, closed: threading.Event) -> None:
    """Brings into this home what others brought into the store.

    A process does it: the server itself has no connection to a database.
    """
    command = [sys.executable, "-m", "sizewright_catalog.refresh.follow"]
    command += ["--home", str(home.root), "--store-url", store_url]
    while not closed.is_set():
        try:
            subprocess.run(command, check=True, timeout=FOLLOW_TIMEOUT_SECONDS, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            log.error("the shared store cannot be followed", extra={"reason": str(error)})
        closed.wait(FOLLOW_SECONDS)
