"""What providers document of instance types and no API of theirs says: network and local disk."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from sizewright_catalog.values import GIB, Network

#: Kinds of network that bypass the system's own stack, beside plain Ethernet.
FABRICS = ("ethernet", "efa", "infiniband", "roce", "gpudirect-tcpx", "gpudirect-tcpxo")


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """What is documented of one type. The bandwidth is of the network its GPUs reach others by.

    None where the documentation does not say it of this very type.
    """

    network: Network
    local_disk_bytes: int | None
    source: str


@cache
def _facts() -> dict[tuple[str, str], TypeFacts]:
    file = resources.files("sizewright_catalog").joinpath("data/type_facts.csv")
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return {(row["provider"], row["type"]): _of(row) for row in rows}


def _of(row: dict[str, str]) -> TypeFacts:
    """Raises ValueError for a row that is wrong."""
    if row["fabric"] not in FABRICS or int(row["network_mbps"]) <= 0 or not row["source"]:
        raise ValueError(f"type_facts.csv: {row}")
    disk = int(row["local_disk_gib"]) * GIB if row["local_disk_gib"] else None
    return TypeFacts(
        Network(int(row["network_mbps"]), row["fabric"], row["source"]), disk, row["source"]
    )


def documented(provider: str, type_name: str) -> TypeFacts | None:
    """What is documented of a type; None for one that is not in the table."""
    return _facts().get((provider, type_name))
