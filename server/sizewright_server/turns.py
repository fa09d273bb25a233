"""Whose turn it is to compute.

Threads that compute at once take Python's interpreter lock from each other at every array
operation: with 16 calls in flight each took 2.7 times the processor time it takes alone, and half
as many were answered (measured, docs/performance.md). So one question computes at a time, and
beside it one of those that take long, which no short one ever waits for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """One turn for short questions and one for long ones."""

    def __init__(self) -> None:
        self._short, self._long = threading.Lock(), threading.Lock()

    @contextmanager
    def taken(self, *, long: bool, seconds: float) -> Iterator[None]:
        """Holds a turn. Raises TimeoutError when it does not come within `seconds`."""
        turn = self._long if long else self._short
        if not turn.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            raise TimeoutError
        try:
            yield
        finally:
            turn.release()
