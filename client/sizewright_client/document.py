"""A YAML or JSON document as text, mappings and lists, typed by nobody yet.

The schema decides what a scalar means, not YAML's guess, so that a version `2.10` stays "2.10", a
region `no` stays "no" and `1e30` is a number. Anchors, aliases, tags and duplicate keys are
refused, and depth is bounded: a small file cannot grow into a large one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

from sizewright_client.problems import Problem, Problems

DEPTH_LIMIT = 32
_TOO_DEEP = f"nested deeper than {DEPTH_LIMIT} levels; a request needs fewer than 10"


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


def parse_document(text: str, *, is_json: bool | None, problems: Problems) -> Node | None:
    """The document of a text; None when it is empty. Duplicate keys go to `problems`.

    `is_json` None means unknown: text that starts with "{" is tried as JSON first, then as YAML.
    Raises DocumentError on bad syntax, anchors, aliases, tags and too much depth.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DocumentError("is no Unicode text; it holds half a surrogate pair") from None
    if is_json:
        return parse_json(text, problems) if text.strip() else None
    if is_json is None and text.lstrip().startswith("{"):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return _parse_yaml(text, problems)
        return parse_json(text, problems)
    return _parse_yaml(text, problems)


def _parse_yaml(text: str, problems: Problems) -> Node | None:
    from sizewright_client.yaml_document import parse_yaml

    return parse_yaml(text, problems)


def parse_json(text: str, problems: Problems) -> Node:
    """The node of a JSON text, its numbers kept as written."""

    def object_of(pairs: list[tuple[str, Any]]) -> _Pairs:
        return _Pairs(tuple(pairs))

    try:
        tree = json.loads(
            text,
            object_pairs_hook=object_of,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_Number,
        )
    except json.JSONDecodeError as error:
        raise DocumentError(
            f"not valid JSON: {error.msg} (column {error.colno})", error.lineno
        ) from None
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    return _node_of_json(tree, "", 0, problems)


class _Number(str):
    """A JSON number as written."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _Pairs:
    """A JSON object with its keys as written, duplicates included."""

    pairs: tuple[tuple[str, Any], ...]


def _node_of_json(tree: Any, path: str, depth: int, problems: Problems) -> Node:
    if depth > DEPTH_LIMIT:
        raise DocumentError(_TOO_DEEP)
    if isinstance(tree, _Pairs):
        entries: dict[str, Entry] = {}
        for key, value in tree.pairs:
            below = f"{path}.{key}" if path else key
            if key in entries:
                problems.add(below, "said twice; keep one")
                continue
            entries[key] = Entry(key, _node_of_json(value, below, depth + 1, problems))
        return Mapping(tuple(entries.values()))
    if isinstance(tree, list):
        return Sequence(
            tuple(
                _node_of_json(item, f"{path}[{index}]", depth + 1, problems)
                for index, item in enumerate(tree)
            )
        )
    return _scalar_of_json(tree)


def _scalar_of_json(value: Any) -> Scalar:
    if isinstance(value, _Number):
        return Scalar(str(value), quoted=False)
    if isinstance(value, str):
        return Scalar(value, quoted=True)
    return Scalar({None: "null", True: "true", False: "false"}[value], quoted=False)
