"""The engine over what a home serves now: a new version takes the old one's place whole.

A thread looks for a new version; calls take the engine that is there when they begin, and keep it.
No call ever waits for a version, and none sees half of one.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.home import Home
from sizewright_catalog.published import Signature, serve_from, signature
from sizewright_catalog.snapshot import SnapshotError
from sizewright_server.engines import sizing_of
from sizewright_server.service import Sizing

if TYPE_CHECKING:
    from sizewright_catalog.overrides import Overrides

log = logging.getLogger("sizewright.catalog")

#: How soon a new version is seen, in seconds.
LOOK_SECONDS = 0.5


class LiveCatalog:
    """Follows a home, or serves one engine for ever where there is none."""

    def __init__(self, app: Sizing) -> None:
        self.app = app
        self._changes = 0
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._seen: Signature | None = None
        self._looking = threading.Lock()

    @classmethod
    def of_home(
        cls, home: Home, store_url: str | None, overrides: Overrides | None = None
    ) -> LiveCatalog:
        """Follows a home. Raises SnapshotError for a broken installation."""
        found = signature(home)
        live = cls(sizing_of(home, store_url, overrides))
        live._seen = found
        threading.Thread(target=live._follow, args=(home,), daemon=True).start()
        return live

    @classmethod
    def of_file(cls, catalog: Catalog, overrides: Overrides | None = None) -> LiveCatalog:
        """Serves one version for ever."""
        return cls(Sizing(catalog, overrides=overrides))

    @property
    def closed(self) -> bool:
        """Whether whoever waits should go."""
        return self._closed.is_set()

    @property
    def changes(self) -> int:
        """How often what is served, or what is known of it, has changed."""
        return self._changes

    def wait(self, after: int, seconds: float) -> bool:
        """Waits for more changes than `after`; whether there were any."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._changes > after or self._closed.is_set(), seconds
            )

    def close(self) -> None:
        """Stops following, and lets everyone go who waits."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    def look(self, home: Home) -> bool:
        """Takes up what was published since the last look; whether anything was.

        What cannot be read leaves everything as it is: a later look tries again.
        """
        with self._looking:
            return self._look(home)

    def _look(self, home: Home) -> bool:
        found = signature(home)
        if found == self._seen and not self.app.is_outdated:
            return False
        served = serve_from(home)
        if served.catalog.version == self.app.catalog.version:
            self.app = self.app.succeeded_by(served)
        else:
            before = self.app.catalog.version
            self.app = self.app.succeeded_by(served)
            log.info("version", extra={"before": before, "version": served.catalog.version})
        for problem in served.problems:
            log.error("catalog problem", extra={"problem": problem})
        self._seen = found
        with self._changed:
            self._changes += 1
            self._changed.notify_all()
        return True

    def _follow(self, home: Home) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            try:
                self.look(home)
            except (SnapshotError, OSError):
                log.exception("the home cannot be read; what is served stays")
