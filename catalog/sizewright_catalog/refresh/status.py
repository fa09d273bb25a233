"""Writes down how a provider's refreshes go, wherever that can still be written."""

from __future__ import annotations

from dataclasses import replace

from sizewright_catalog.home import Home
from sizewright_catalog.locks import Timeout, commit_lock
from sizewright_catalog.published import (
    ProviderRecord,
    PublishedError,
    read_published,
    write_published,
)
from sizewright_catalog.store import Store, StoreError


def write_down(home: Home, store_url: str | None, record: ProviderRecord) -> None:
    """Puts a record into the store; where that is broken, into what is published alone."""
    try:
        store = Store(home, store_url)
        try:
            with commit_lock(home):
                store.record(record)
                store.publish()
        finally:
            store.close()
    except (StoreError, OSError, Timeout):
        _publish_alone(home, record)


def _publish_alone(home: Home, record: ProviderRecord) -> None:
    try:
        published = read_published(home)
        if published is not None:
            providers = {**published.providers, record.name: record}
            write_published(home, replace(published, providers=providers))
    except (PublishedError, OSError):
        # Nothing can be written any more; the last event says why, to whoever started this.
        return
