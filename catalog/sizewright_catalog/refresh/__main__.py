"""The process of a refresh: one provider, events on standard output, cancelled by SIGTERM."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from sizewright_catalog.home import Home
from sizewright_catalog.providers import load_provider, registered
from sizewright_catalog.providers.contract import Schedule
from sizewright_catalog.published import ProviderRecord
from sizewright_catalog.refresh import schedule
from sizewright_catalog.refresh.events import Event, line_of
from sizewright_catalog.refresh.run import Options, Refresh
from sizewright_catalog.refresh.status import write_down

#: How soon a provider that is not installed is looked for again, at most.
RETRY_SECONDS = 3600.0
#: Answers come first: a refresh has what readers leave.
NICENESS = 19


def main() -> int:
    """Refreshes and returns 0 when the refresh went in, 1 when it did not."""
    parser = argparse.ArgumentParser(prog="python -m sizewright_catalog.refresh")
    parser.add_argument("--home", type=Path, required=True, help="folder of the catalog")
    parser.add_argument("--provider", required=True, help="provider to refresh")
    parser.add_argument("--accept-changes", action="store_true", help="take what jumped or shrank")
    arguments = parser.parse_args()
    name: str = arguments.provider
    cancelled = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: cancelled.set())
    os.nice(NICENESS)
    tell = _Teller()
    home, store_url = Home(arguments.home), os.environ.get("SIZEWRIGHT_STORE_URL") or None
    try:
        provider = load_provider(name)
    except (KeyError, ImportError) as error:
        tell(_cannot_load(home, store_url, name, error))
        return 1
    options = Options(provider_settings(name), store_url, arguments.accept_changes)
    last = Refresh(home, provider, options, tell, cancelled).run()
    return 0 if last.stage == "done" else 1


def _cannot_load(home: Home, store_url: str | None, name: str, error: Exception) -> Event:
    """Writes down that a provider is not there, which no provider can do itself."""
    if isinstance(error, KeyError):
        words = f"no provider {name!r}; there are {', '.join(sorted(registered()))}"
        return Event(name, "failed", words)
    words = f"not installed: {error}; install sizewright[{name}]"
    plan, now = Schedule(every_seconds=RETRY_SECONDS), time.time()
    record = schedule.failed(ProviderRecord(name), plan, now, words, random.Random())
    write_down(home, store_url, replace(record, last_attempt=now))
    return Event(name, "failed", words)


def provider_settings(name: str) -> dict[str, str]:
    """The settings of a provider: SIZEWRIGHT_AWS_ENDPOINT_URL is "endpoint_url" of "aws"."""
    prefix = f"SIZEWRIGHT_{name.upper().replace('-', '_')}_"
    return {
        key.removeprefix(prefix).lower(): value
        for key, value in os.environ.items()
        if key.startswith(prefix) and value
    }


class _Teller:
    """Writes events, one a line. Whoever listened may be gone; the refresh goes on then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            try:
                sys.stdout.write(line_of(event))
                sys.stdout.flush()
            except BrokenPipeError:
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open until the end)


if __name__ == "__main__":
    status = main()
    # Threads that hang in a call would keep the process; what matters is on the disk.
    os._exit(status)
