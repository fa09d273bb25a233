"""Statements of the store, each within a transaction of whoever calls it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from sizewright_catalog.diff import PriceChange
from sizewright_catalog.published import ProviderRecord, Published, VersionEntry, record_of
from sizewright_catalog.store.tables import CURRENT, DOCUMENTS, PROVIDERS, VERSIONS

#: Versions that are kept as files, the one served among them.
KEPT_VERSIONS = 8


class VersionConflict(Exception):
    """Another version took its place since this one was begun: merge anew."""


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A price change and the version that brought it."""

    id: int
    entry: VersionEntry
    change: PriceChange


def swap(connection: sa.Connection, sequence: int) -> None:
    """Moves the pointer from the sequence before this one. Raises VersionConflict."""
    if sequence == 1 and connection.scalar(sa.select(CURRENT.c.sequence)) is None:
        connection.execute(sa.insert(CURRENT).values(id=1, sequence=0))
    moved = connection.execute(
        sa.update(CURRENT).where(CURRENT.c.sequence == sequence - 1).values(sequence=sequence)
    )
    if moved.rowcount != 1:
        raise VersionConflict(f"version {sequence} is not the next one")


def published(connection: sa.Connection) -> Published:
    """All that readers need."""
    newest = VERSIONS.c.sequence.desc()
    query = sa.select(*entry_columns()).order_by(newest).limit(KEPT_VERSIONS)
    documents: dict[str, dict[str, Any]] = {}
    for kind, name, document in connection.execute(sa.select(DOCUMENTS)):
        documents.setdefault(kind, {})[name] = document
    return Published(
        sequence=connection.scalar(sa.select(CURRENT.c.sequence)) or 0,
        versions=tuple(VersionEntry(*row) for row in connection.execute(query)),
        providers={
            name: record_of(record) for name, record in connection.execute(sa.select(PROVIDERS))
        },
        documents=documents,
    )


def entry_columns() -> list[sa.Column[Any]]:
    """The columns of a version that make an entry."""
    return [VERSIONS.c[name] for name in VersionEntry.__dataclass_fields__]


def put_record(connection: sa.Connection, record: ProviderRecord) -> None:
    """Writes how a provider's refreshes go."""
    put(connection, PROVIDERS, {"name": record.name}, {"record": asdict(record)})


def put(
    connection: sa.Connection, table: sa.Table, key: dict[str, Any], values: dict[str, Any]
) -> None:
    """Writes a row in the place of one with the same key, on every database alike."""
    chosen = sa.and_(*(table.c[name] == value for name, value in key.items()))
    if not connection.execute(sa.update(table).where(chosen).values(**values)).rowcount:
        connection.execute(sa.insert(table).values(**key, **values))


def recorded(row: Any) -> RecordedChange:
    """A change of a joined row."""
    names = VersionEntry.__dataclass_fields__
    entry = VersionEntry(**{name: row[name] for name in names})
    change = PriceChange(**{name: row[name] for name in PriceChange.__dataclass_fields__})
    return RecordedChange(row["id"], entry, change)
