"""Machines as documents of the store: what was registered, as it was understood then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sizewright_catalog.values import Machine

#: Kind of the store's documents that are machines.
MACHINES = "machines"

_ADAPTER = TypeAdapter(Machine)


def machine_document(machine: Machine) -> dict[str, Any]:
    """A machine as JSON."""
    made: dict[str, Any] = _ADAPTER.dump_python(machine, mode="json")
    return made


def read_machines(
    documents: Mapping[str, Mapping[str, Any]],
) -> tuple[tuple[Machine, ...], tuple[str, ...]]:
    """The machines among documents by name, and what is wrong with those that cannot be read."""
    machines, problems = [], []
    for name, document in sorted(documents.get(MACHINES, {}).items()):
        try:
            machines.append(_ADAPTER.validate_python(document))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            problems.append(f"{name}: {where}: {first['msg']}")
    return tuple(machines), tuple(problems)
