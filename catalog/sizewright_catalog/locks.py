"""Locks between the processes of a home. They are the kernel's: one that is killed holds none."""

from __future__ import annotations

from filelock import FileLock, Timeout

from sizewright_catalog.home import Home

__all__ = ["Timeout", "commit_lock", "refresh_lock"]

#: How long anyone waits for another to change what is published, in seconds.
COMMIT_PATIENCE = 120.0


def commit_lock(home: Home) -> FileLock:
    """Held by whoever changes the store and what is published; a thread may take it twice.

    Raises Timeout where somebody holds it for minutes.
    """
    return FileLock(home.commit_lock, timeout=COMMIT_PATIENCE, is_singleton=True)


def refresh_lock(home: Home, provider: str) -> FileLock:
    """Held by whoever refreshes a provider, all the time. Raises Timeout at once."""
    return FileLock(home.refresh_lock(provider), timeout=0)
