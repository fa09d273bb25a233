"""Whose turn it is to compute.

A worker answers its calls on one event loop, and short questions compute there, one at a time: no
call is handed from thread to thread, and no thread takes Python's interpreter lock from the one
that computes (measured, docs/performance.md). Between two of them the loop sees to whatever else
has come, so that health checks and refusals wait for one question at most. A long question computes
in a thread beside them; what waits for the store, and what is told as it happens, has threads too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

#: What a turn is for.
Work: TypeAlias = Callable[[], bytes]


class Turns:
    """The turns of one event loop. Its methods are called there, `close` from anywhere."""

    def __init__(self, most_in_store: int, most_streams: int) -> None:
        self._waiting: deque[tuple[asyncio.Future[bytes], Work]] = deque()
        self._is_free = True
        self._long = ThreadPoolExecutor(1, "long")
        self._store = ThreadPoolExecutor(most_in_store, "store")
        self._streams = ThreadPoolExecutor(most_streams, "stream")

    async def short(self, work: Work) -> bytes:
        """The result of a short question, which nobody works on once it is cancelled."""
        loop = asyncio.get_running_loop()
        if self._is_free:
            self._is_free = False
            loop.call_soon(self._next)
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
        """Works on what has waited longest; the loop looks around before the next."""
        while self._waiting:
            result, work = self._waiting.popleft()
            if result.done():
                continue
            asyncio.get_running_loop().call_soon(self._next)
            try:
                result.set_result(work())
            except Exception as error:
                result.set_exception(error)
                # Its caller may have gone: then nobody is to be told that nobody asked for it.
                result.exception()
            return
        self._is_free = True
