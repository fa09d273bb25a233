"""Where a catalog lives on disk: versions, what is published, the store, and locks."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

#: The folder, where it is not the user's own data folder.
HOME_VARIABLE = "SIZEWRIGHT_HOME"


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one catalog. Nothing is made before something is written."""

    root: Path

    @property
    def published(self) -> Path:
        """What readers read: the version to serve, and what is known of every provider."""
        return self.root / "published.json"

    @property
    def versions(self) -> Path:
        """The folder of the version files."""
        return self.root / "versions"

    def version(self, version: str) -> Path:
        """The file of a version."""
        return self.versions / f"{version}.npz"

    @property
    def store_file(self) -> Path:
        """The file of the home's own store."""
        return self.root / "store.sqlite"

    @property
    def store_url(self) -> str:
        """The store of a home that has none of its own elsewhere."""
        return f"sqlite:///{self.store_file}"

    @property
    def commit_lock(self) -> Path:
        """Held by whoever changes the store and what is published, for a moment."""
        return self.root / "locks" / "commit.lock"

    def refresh_lock(self, provider: str) -> Path:
        """Held by whoever refreshes a provider, all the time."""
        return self.root / "locks" / f"refresh-{provider}.lock"

    def set_store_aside(self) -> Path:
        """Moves a damaged store out of the way, for whoever wants to look into it."""
        aside = self.store_file.with_name(f"{self.store_file.name}.damaged-{time.time():.0f}")
        self.store_file.replace(aside)
        return aside

    def make(self) -> None:
        """Makes the folders. Raises OSError."""
        for folder in (self.root, self.versions, self.commit_lock.parent):
            folder.mkdir(parents=True, exist_ok=True)


def default_home() -> Home:
    """The home that SIZEWRIGHT_HOME names, else the one in the user's data folder."""
    given = os.environ.get(HOME_VARIABLE)
    if given:
        return Home(Path(given))
    from platformdirs import user_data_path

    return Home(user_data_path("sizewright"))
