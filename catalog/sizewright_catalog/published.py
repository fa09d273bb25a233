"""What readers read of a home: one small JSON file that is replaced whole. No store, no ORM."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.home import Home
from sizewright_catalog.snapshot import SnapshotError, replacing

FORMAT = 1

Signature = tuple[int, int, int]


class PublishedError(Exception):
    """A published file that cannot be read."""


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """A version that took its place. `swapped_at` is in Unix seconds."""

    sequence: int
    version: str
    swapped_at: float
    offer_count: int
    type_count: int
    reason: str


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Rows that a check held back: what is wrong, how many, and a few by name."""

    reason: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunningRefresh:
    """Who refreshes a provider: a process, known by its id and the time it was made."""

    pid: int
    process_made_at: float
    since: float


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """How a provider's refreshes go. Times are Unix seconds; None where there was none.

    `held_since` says since when a check holds something back, by what is held.
    """

    name: str
    last_success: float | None = None
    last_attempt: float | None = None
    last_error: str = ""
    last_error_at: float | None = None
    failures: int = 0
    next_try: float | None = None
    every_seconds: float = 0.0
    running: RunningRefresh | None = None
    held_back: tuple[HeldBack, ...] = ()
    failed_scopes: dict[str, str] = field(default_factory=dict)
    held_since: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Published:
    """All a reader needs: the versions, newest first, the providers, and documents by kind.

    `documents` are what people state: machines and price overrides, by kind and name.
    """

    sequence: int
    versions: tuple[VersionEntry, ...] = ()
    providers: dict[str, ProviderRecord] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The version to serve; empty for the bundled one."""
        return self.versions[0].version if self.versions else ""


def read_published(home: Home) -> Published | None:
    """What is published; None where nothing ever was. Raises PublishedError when unreadable."""
    try:
        document = json.loads(home.published.read_bytes())
        if document["format"] != FORMAT:
            raise ValueError(f"is of format {document['format']}, not {FORMAT}")
        return Published(
            sequence=int(document["sequence"]),
            versions=tuple(VersionEntry(**entry) for entry in document["versions"]),
            providers={name: record_of(one) for name, one in document["providers"].items()},
            documents=document["documents"],
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PublishedError(f"{home.published} cannot be read: {error}") from error


def signature(home: Home) -> Signature | None:
    """Tells one published file from the next, without reading it; None where there is none."""
    try:
        found = os.stat(home.published)
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def write_published(home: Home, published: Published) -> None:
    """Replaces what is published in one step. Raises OSError."""
    document = {"format": FORMAT, **asdict(published)}
    with replacing(home.published) as file:
        file.write(json.dumps(document, indent=1).encode())


def record_of(document: dict[str, Any]) -> ProviderRecord:
    """A provider's record from its JSON. Raises TypeError or KeyError for what is none."""
    running = document.get("running")
    return ProviderRecord(
        **{
            **document,
            "running": RunningRefresh(**running) if running else None,
            "held_back": tuple(
                HeldBack(one["reason"], int(one["count"]), tuple(one["examples"]))
                for one in document.get("held_back", ())
            ),
        }
    )


@dataclass(frozen=True, slots=True)
class Served:
    """The catalog to serve, what is published of it, and what is wrong with either."""

    catalog: Catalog
    published: Published
    problems: tuple[str, ...] = ()


def serve_from(home: Home) -> Served:
    """The newest version that can be read, the bundled one at worst. Never raises for a home.

    What could not be read is among the problems. Raises SnapshotError when the bundled catalog
    itself is unreadable.
    """
    problems: list[str] = []
    try:
        published = read_published(home) or Published(0)
    except PublishedError as error:
        return Served(Catalog.load(), Published(0), (str(error),))
    for entry in published.versions:
        try:
            return Served(Catalog.load(home.version(entry.version)), published, tuple(problems))
        except SnapshotError as error:
            problems.append(str(error))
    return Served(Catalog.load(), published, tuple(problems))
