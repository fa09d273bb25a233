"""Time as a refresh sees it, so that tests can let an hour pass."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is written down, monotonic time for what is waited for. Seconds."""

    def now(self) -> float:
        """Unix time; it may jump either way."""
        ...

    def monotonic(self) -> float:
        """Never goes back."""
        ...

    def sleep(self, seconds: float, until: threading.Event) -> None:
        """Waits, or less where `until` is set meanwhile."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        """Unix time."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float, until: threading.Event) -> None:
        """Waits on the event."""
        until.wait(seconds)
