"""The store: what changes about a catalog. Writers alone import it; readers never do."""

from sizewright_catalog.store.statements import VersionConflict
from sizewright_catalog.store.store import Store, StoreError

__all__ = ["Store", "StoreError", "VersionConflict"]
