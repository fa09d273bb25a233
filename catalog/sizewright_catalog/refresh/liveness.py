"""Which process refreshes, and whether it still does. Readers ask this too."""

from __future__ import annotations

import os

from sizewright_catalog.published import RunningRefresh


def this_process(now: float) -> RunningRefresh:
    """Who refreshes: this process."""
    import psutil

    return RunningRefresh(os.getpid(), psutil.Process().create_time(), now)


def is_alive(running: RunningRefresh) -> bool:
    """Whether the process of a refresh still runs; another one with its number does not count."""
    import psutil

    try:
        process = psutil.Process(running.pid)
        same = abs(process.create_time() - running.process_made_at) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
