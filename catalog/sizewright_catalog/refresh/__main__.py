"""The process of a refresh: one provider, events on standard output, cancelled by SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from sizewright_catalog.home import Home
from sizewright_catalog.providers import load_provider
from sizewright_catalog.refresh.events import Event, line_of
from sizewright_catalog.refresh.run import Options, Refresh

#: Answers come first: a refresh has what readers leave.
NICENESS = 10


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
    try:
        provider = load_provider(name)
    except ImportError as error:
        words = f"not installed: {error}; install sizewright[{name}]"
        tell(Event(name, "failed", words))
        return 1
    options = Options(
        settings=provider_settings(name),
        store_url=os.environ.get("SIZEWRIGHT_STORE_URL") or None,
        accept_changes=arguments.accept_changes,
    )
    last = Refresh(Home(arguments.home), provider, options, tell, cancelled).run()
    return 0 if last.stage == "done" else 1


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
