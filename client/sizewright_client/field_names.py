"""Which keys a request file may use for a message's fields, and what to say about other keys."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Literal, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from sizewright_client.quantities import shown

Unit: TypeAlias = Literal["none", "bytes", "dollars"]
_LISTED_NAMES = 24


@dataclass(frozen=True, slots=True)
class NamedField:
    """A field under one of its names. `unit` says which unit that name lets a value carry."""

    field: FieldDescriptor
    unit: Unit


@cache
def fields_by_name(message: Descriptor) -> dict[str, NamedField]:
    """The fields of a message by every name a file may use.

    That is the proto name, its JSON name, and for a field that ends in a unit also the name without
    it: `driver_total: 80GiB` for `driver_total_bytes`, `max_cost_per_hour: "12.50"` (dollars) for
    `max_cost_per_hour_nanos_usd`.
    """
    names: dict[str, NamedField] = {}
    for field in message.fields:
        named = NamedField(field, "none")
        if field.name.endswith("_bytes"):
            names[field.name.removesuffix("_bytes")] = named = NamedField(field, "bytes")
        elif field.name.endswith("_nanos_usd"):
            names[field.name.removesuffix("_nanos_usd")] = NamedField(field, "dollars")
        names[field.name] = names[field.json_name] = named
    return names


def shown_names(message: Descriptor) -> list[str]:
    """The name of each field that a file would best use, in the order of the contract."""
    return [field.name.removesuffix("_nanos_usd") for field in message.fields]


def unknown_field(message: Descriptor, key: str, root: Descriptor) -> str:
    """What to say of a key that a message does not have, and what would be right."""
    known = shown_names(message)
    near = get_close_matches(key.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    if near:
        return f"unknown field; did you mean {near[0]!r}?"
    homes = _homes(root).get(key, ())
    if homes:
        return f"unknown field here; it belongs to {' or '.join(homes[:3])}"
    listed = ", ".join(known[:_LISTED_NAMES])
    return f"unknown field; known: {listed}" if known else "unknown field; none is known here"


def unknown_choice(known: list[str], given: str) -> str:
    """What to say of a value that is not on the list, with the nearest that is."""
    near = get_close_matches(given.lower().replace("_", "-"), known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{shown(given)} is unknown; {hint}Known: {', '.join(known)}"


@cache
def _homes(root: Descriptor) -> dict[str, tuple[str, ...]]:
    """The paths under `root` where each field name is at home, shallow ones first."""
    homes: dict[str, tuple[str, ...]] = {}
    queue: list[tuple[Descriptor, str, tuple[str, ...]]] = [(root, "", ())]
    while queue:
        message, path, above = queue.pop(0)
        for field in message.fields:
            homes[field.name] = (*homes.get(field.name, ()), path or "the top of the file")
            below = field.message_type
            if below is None or below.full_name in above or below.GetOptions().map_entry:
                continue
            inner = f"{path}.{field.name}" if path else field.name
            queue.append((below, inner, (*above, message.full_name)))
    return homes
