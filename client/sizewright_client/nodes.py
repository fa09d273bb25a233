"""The nodes of a YAML or JSON document: text, mappings and lists, typed by nobody yet.

The schema decides what a scalar means, not YAML's guess, so that a version `2.10` stays "2.10", a
region `no` stays "no" and `1e30` is a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sizewright_client.problems import Problem

DEPTH_LIMIT = 32
TOO_DEEP = f"nested deeper than {DEPTH_LIMIT} levels; a request needs fewer than 10"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar as written. `quoted` tells the text "null" from a null."""

    text: str
    quoted: bool
    line: int | None = None

    @property
    def is_null(self) -> bool:
        """Whether nothing is said: an empty value, `null` or `~`."""
        return not self.quoted and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping with its value."""

    key: str
    value: Node
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping, in the order of the file."""

    entries: tuple[Entry, ...]
    line: int | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, in the order of the file."""
        return tuple(entry.key for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    line: int | None = None


Node: TypeAlias = Scalar | Mapping | Sequence


class DocumentError(ValueError):
    """A document that cannot be read further. `problem` says where and why."""

    def __init__(self, description: str, line: int | None = None) -> None:
        self.problem = Problem("", description, line)
        super().__init__(description)
