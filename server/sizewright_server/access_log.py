"""The log's line for each call, written a few at a time.

A line costs 60 microseconds of processor time where it is written between two questions, and a
tenth of that among others: what it takes is no longer in the processor's caches, and each line is a
call of the system (measured).
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import asdict, dataclass

log = logging.getLogger("sizewright.access")

#: How long a line may wait for others, in seconds.
WAIT_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Answered:
    """What the log says of one call."""

    method: str
    code: str
    milliseconds: float
    peer: str
    request_id: str
    catalog: str


class AccessLog:
    """Lines of one event loop, which tells them soon, and the last when it is told to."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, Answered]] = []

    def note(self, call: Answered) -> None:
        """A call that has ended now."""
        if not log.isEnabledFor(logging.INFO):
            return
        if not self._waiting:
            asyncio.get_running_loop().call_later(WAIT_SECONDS, self.tell)
        self._waiting.append((time.time(), call))

    def tell(self) -> None:
        """Writes what waits, each line with the time its call ended."""
        told, self._waiting = self._waiting, []
        for ended, call in told:
            record = log.makeRecord(
                log.name, logging.INFO, __file__, 0, "call", (), None, extra=asdict(call)
            )
            record.created = ended
            log.handle(record)
