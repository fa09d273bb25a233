"""Whose turn it is to compute.

A worker answers its calls on one event loop, and short questions compute there, one at a time: no
call is handed from thread to thread, and no thread takes Python's interpreter lock from the one
that computes (measured, docs/performance.md). Every few milliseconds the loop sees to whatever else
has come, so that health checks and refusals wait for little more than one question. A long one
computes in a thread beside them; what waits for the store, or lasts while somebody listens, has
threads too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

#: How long short questions follow each other before the loop looks around, one of them at least.
SLICE_SECONDS = 0.002
#: What a turn is for.
Work: TypeAlias = Callable[[], bytes]


class Turns:
    """The turns of one event loop. Its methods are called there, `close` from anywhere."""

    def __init__(self, most_in_store: int, most_streams: int) -> None:
        self._waiting: deque[tuple[asyncio.Future[bytes], Work]] = deque()
        #: Until when short questions may follow each other; 0 when none has begun.
        self._until = 0.0
        self._long = ThreadPoolExecutor(1, "long")
        self._store = ThreadPoolExecutor(most_in_store, "store")
        self._streams = ThreadPoolExecutor(most_streams, "stream")

    async def short(self, work: Work) -> bytes:
        """The result of a short question, which nobody works on once it is cancelled."""
        loop = asyncio.get_running_loop()
        if not self._until:
            self._until = loop.time() + SLICE_SECONDS
            loop.call_soon(self._next)
            return work()
        if not self._waiting and loop.time() < self._until:
            return work()
        result: asyncio.Future[bytes] = loop.create_future()
        self._waiting.append((result, work))
        return await result

    async def long(self, work: Work, seconds: float) -> bytes:
        """The result of a long question; one computes at a time.

        Raises TimeoutError when it is not there within `seconds`.
        """
        async with asyncio.timeout(seconds):
            return await asyncio.get_running_loop().run_in_executor(self._long, work)

    async def in_store(self, work: Work, seconds: float) -> bytes:
        """The result of work that mostly waits.

        Raises TimeoutError when it is not there within `seconds`.
        """
        async with asyncio.timeout(seconds):
            return await asyncio.get_running_loop().run_in_executor(self._store, work)

    async def stream(self, work: Callable[[], None]) -> None:
        """Does what lasts as long as somebody listens."""
        await asyncio.get_running_loop().run_in_executor(self._streams, work)

    def close(self) -> None:
        """Drops what no thread has begun."""
        for threads in (self._long, self._store, self._streams):
            threads.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> None:
        """Works for a while on what has waited longest; then the loop looks around again."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._until = 0.0
            return
        loop.call_soon(self._next)
        self._until = loop.time() + SLICE_SECONDS
        while self._waiting:
            result, work = self._waiting.popleft()
            if result.done():
                continue
            try:
                result.set_result(work())
            except Exception as error:
                result.set_exception(error)
                # Its caller may have gone: then nobody is to be told that nobody asked for it.
                result.exception()
            if loop.time() >= self._until:
                return
