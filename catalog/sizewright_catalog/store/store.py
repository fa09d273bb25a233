"""Reads and writes the store. Every change is one transaction; then it is published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from sizewright_catalog.diff import PriceChange
from sizewright_catalog.home import Home
from sizewright_catalog.locks import Timeout, commit_lock
from sizewright_catalog.published import (
    ProviderRecord,
    Published,
    PublishedError,
    VersionEntry,
    read_published,
    write_published,
)
from sizewright_catalog.snapshot import replacing
from sizewright_catalog.store.statements import (
    KEPT_VERSIONS,
    RecordedChange,
    entry_columns,
    published,
    put,
    put_record,
    recorded,
    swap,
)
from sizewright_catalog.store.tables import (
    CURRENT,
    DOCUMENTS,
    METADATA,
    PRICE_CHANGES,
    VERSIONS,
)

#: How long a write waits for another writer, in seconds.
BUSY_SECONDS = 10.0
#: What SQLite says of a file that is no longer a database.
DAMAGED = ("not a database", "malformed", "disk image")
READS_ONLY = "sizewright_reads_only"
#: Rows written in one statement.
CHUNK = 5000
#: Price changes that are kept, oldest lost first: some 300 MB of SQLite.
KEPT_CHANGES = 2_000_000


class StoreError(Exception):
    """A store that cannot be opened, read or written: gone, locked, full, damaged."""


class Store:
    """The store of a home: its own SQLite file, or one that `url` names and homes share.

    A shared store keeps each version's file too, so that every home can be brought up to date.
    Raises StoreError from everything.
    """

    def __init__(self, home: Home, url: str | None = None) -> None:
        self.home = home
        self.shared = url is not None
        with _told(f"the store of {home.root}"):
            home.make()
            self._engine = self._opened(url)
        self._restore()

    def _opened(self, url: str | None) -> sa.Engine:
        """The engine with its tables; a damaged file of the home's own is set aside first."""
        engine = _engine(url or self.home.store_url)
        try:
            METADATA.create_all(engine)
        except DatabaseError as error:
            if self.shared or not any(words in str(error.orig) for words in DAMAGED):
                raise
            engine.dispose()
            self.home.set_store_aside()
            METADATA.create_all(engine)
        return engine

    def close(self) -> None:
        """Lets go of its connections."""
        self._engine.dispose()

    def read(self) -> Published:
        """All that readers need, as the store has it."""
        with self._reading() as connection:
            return published(connection)

    def publish(self) -> Published:
        """Brings the home's published file, and the version files it names, up to date."""
        with _told("what is published"), commit_lock(self.home):
            published = self.read()
            for entry in published.versions[:1]:
                self._materialise(entry)
            write_published(self.home, published)
            return published

    def record(self, record: ProviderRecord) -> None:
        """Writes how a provider's refreshes go."""
        with self._writing() as connection:
            put_record(connection, record)

    def commit(
        self,
        entry: VersionEntry,
        record: ProviderRecord | None,
        changes: Iterable[PriceChange],
    ) -> None:
        """Makes a version the one that is served, all or nothing. Its file is there already.

        `record` is that of the provider whose refresh brought it.

        Raises VersionConflict when the version before it is not the one that is served.
        """
        content = self.home.version(entry.version).read_bytes() if self.shared else None
        with self._writing() as connection:
            swap(connection, entry.sequence)
            connection.execute(sa.insert(VERSIONS).values(**asdict(entry), content=content))
            if record is not None:
                put_record(connection, record)
            rows = ({**asdict(change), "sequence": entry.sequence} for change in changes)
            while chunk := list(islice(rows, CHUNK)):
                connection.execute(sa.insert(PRICE_CHANGES), chunk)

    def put_document(self, kind: str, name: str, document: dict[str, Any]) -> None:
        """Writes a document, in the place of one of the same kind and name, and publishes it."""
        with self._writing() as connection:
            put(connection, DOCUMENTS, {"kind": kind, "name": name}, {"document": document})
        self.publish()

    def delete_document(self, kind: str, name: str) -> bool:
        """Deletes a document and publishes that; whether there was one."""
        with self._writing() as connection:
            chosen = (DOCUMENTS.c.kind == kind) & (DOCUMENTS.c.name == name)
            found = connection.execute(sa.delete(DOCUMENTS).where(chosen)).rowcount
        self.publish()
        return bool(found)

    def price_changes(
        self,
        provider: str,
        type_name: str,
        *,
        region: str = "",
        terms: tuple[str, ...] = (),
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[RecordedChange]:
        """The changes of a type's prices, newest first, those older than `before_id`."""
        changes = PRICE_CHANGES.c
        query = (
            sa.select(PRICE_CHANGES, *entry_columns())
            .join(VERSIONS, VERSIONS.c.sequence == changes.sequence)
            .where(changes.provider == provider, changes.type == type_name)
            .order_by(changes.id.desc())
            .limit(limit)
        )
        if region:
            query = query.where(changes.region == region)
        if terms:
            query = query.where(changes.term.in_(terms))
        if before_id is not None:
            query = query.where(changes.id < before_id)
        with self._reading() as connection:
            return [recorded(row) for row in connection.execute(query).mappings()]

    def prune(self) -> None:
        """Forgets the oldest versions and price changes, and deletes files nobody names.

        Whoever calls it holds the commit lock, so what is half written was left by one that was
        killed.
        """
        with self._writing() as connection:
            newest = connection.scalar(sa.select(CURRENT.c.sequence)) or 0
            old = VERSIONS.c.sequence <= newest - KEPT_VERSIONS
            connection.execute(sa.update(VERSIONS).where(old).values(content=None))
            last = connection.scalar(sa.select(sa.func.max(PRICE_CHANGES.c.id))) or 0
            lost = PRICE_CHANGES.c.id <= last - KEPT_CHANGES
            connection.execute(sa.delete(PRICE_CHANGES).where(lost))
        kept = {entry.version for entry in self.read().versions}
        with _told("the folder of versions"):
            for file in self.home.versions.glob("*.npz"):
                if file.stem not in kept:
                    file.unlink(missing_ok=True)
            for folder in (self.home.root, self.home.versions):
                for file in folder.glob(".*.tmp"):
                    file.unlink(missing_ok=True)

    def _restore(self) -> None:
        """Fills a store that is new from what the home has published, so that nothing is lost."""
        try:
            published = read_published(self.home)
        except PublishedError:
            return
        if published is None:
            return
        with self._writing() as connection:
            if connection.scalar(sa.select(CURRENT.c.sequence)) is not None:
                return
            connection.execute(sa.insert(CURRENT).values(id=1, sequence=published.sequence))
            for entry in published.versions:
                connection.execute(sa.insert(VERSIONS).values(**asdict(entry)))
            for record in published.providers.values():
                put_record(connection, record)
            for kind, documents in published.documents.items():
                for name, document in documents.items():
                    key = {"kind": kind, "name": name}
                    put(connection, DOCUMENTS, key, {"document": document})

    def _materialise(self, entry: VersionEntry) -> None:
        """Writes the file of a version that another home brought into a shared store."""
        path = self.home.version(entry.version)
        if path.exists():
            return
        query = sa.select(VERSIONS.c.content).where(VERSIONS.c.sequence == entry.sequence)
        with self._reading() as connection:
            content = connection.scalar(query)
        if content is not None:
            with replacing(path) as file:
                file.write(content)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        readers = self._engine.execution_options(**{READS_ONLY: True})
        with _told("the store"), readers.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with _told("the store"), self._engine.begin() as connection:
            yield connection


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What the database and the disk say, as a StoreError that names what it is about."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise StoreError(f"{what}: {cause}") from error
    except Timeout as error:
        raise StoreError(f"{what}: another process has kept it locked for minutes") from error
    except OSError as error:
        raise StoreError(f"{what}: {error.strerror or error}: {error.filename or ''}") from error


def _engine(url: str) -> sa.Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    # The driver would begin a transaction at the first write, and then could not wait for another
    # writer that began before: a writer begins as one (SQLAlchemy's own recipe for SQLite).
    @sa.event.listens_for(engine, "connect")
    def _plain(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get(READS_ONLY)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine
