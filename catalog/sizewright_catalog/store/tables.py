"""The tables of the store, the same for SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

METADATA = MetaData()

#: SQLite numbers rows by itself only where the key is an INTEGER.
ROW_ID = BigInteger().with_variant(Integer, "sqlite")

#: Every version that took its place. `content` is the file, where homes share the store.
VERSIONS = Table(
    "versions",
    METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("version", String(64), nullable=False),
    Column("swapped_at", Double, nullable=False),
    Column("offer_count", Integer, nullable=False),
    Column("type_count", Integer, nullable=False),
    Column("reason", String, nullable=False),
    Column("content", LargeBinary),
)

#: One row: the sequence of the version that is served. Whoever swaps says which it replaces.
CURRENT = Table(
    "current",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", Integer, nullable=False),
)

#: How each provider's refreshes go; a ProviderRecord as JSON.
PROVIDERS = Table(
    "providers",
    METADATA,
    Column("name", String, primary_key=True),
    Column("record", JSON, nullable=False),
)

#: What people state: machines and price overrides, by kind and name.
DOCUMENTS = Table(
    "documents",
    METADATA,
    Column("kind", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("document", JSON, nullable=False),
)

#: Prices that changed, in nano-units; no row for an offer whose price stayed.
PRICE_CHANGES = Table(
    "price_changes",
    METADATA,
    Column("id", ROW_ID, primary_key=True),
    Column("sequence", Integer, ForeignKey("versions.sequence"), nullable=False),
    Column("provider", String, nullable=False),
    Column("type", String, nullable=False),
    Column("region", String, nullable=False),
    Column("zone", String, nullable=False),
    Column("term", String, nullable=False),
    Column("commitment", String, nullable=False),
    Column("currency", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("before_nanos", BigInteger),
    Column("after_nanos", BigInteger),
    Index("price_changes_of_type", "provider", "type", "id"),
)
