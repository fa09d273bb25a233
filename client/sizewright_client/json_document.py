"""JSON text to nodes, the numbers kept as written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sizewright_client.nodes import (
    DEPTH_LIMIT,
    TOO_DEEP,
    DocumentError,
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
)
from sizewright_client.problems import Problems


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
        raise DocumentError(TOO_DEEP) from None
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
        raise DocumentError(TOO_DEEP)
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
