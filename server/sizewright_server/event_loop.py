"""The event loop that calls arrive on: one of a process, in a thread of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any, TypeVar

Result = TypeVar("Result")


@lru_cache(maxsize=1)
def serving_loop() -> asyncio.AbstractEventLoop:
    """The loop, which runs as long as the process: gRPC keeps the first one it sees for good."""
    loop = _new_loop()
    threading.Thread(target=loop.run_forever, name="serving", daemon=True).start()
    return loop


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, whose rounds cost less, where there is one for the system."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def on_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that runs on the loop; never called from there."""
    return asyncio.run_coroutine_threadsafe(work, serving_loop()).result()
