"""YAML text to nodes, from the parser's events: no constructors run, nothing is expanded."""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

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

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet."""

    is_mapping: bool
    line: int
    path: str
    key: Scalar | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    items: list[Node] = field(default_factory=list)

    def path_of_next(self) -> str:
        if not self.is_mapping:
            return f"{self.path}[{len(self.items)}]"
        key = self.key.text if self.key is not None else ""
        return f"{self.path}.{key}" if self.path else key

    def closed(self) -> Node:
        if self.is_mapping:
            return Mapping(tuple(self.entries.values()), self.line)
        return Sequence(tuple(self.items), self.line)


class _Builder:
    """Builds one document from events; refuses what could expand or run."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._open: list[_Open] = []
        self._documents: list[Node] = []

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise DocumentError(
                "anchors (&name) and aliases (*name) are not read here; write the value out", line
            )
        tag = getattr(event, "tag", None)
        if tag and tag != "!":
            raise DocumentError(f"tags are not read here; leave {tag[:60]} out", line)
        if isinstance(event, yaml.ScalarEvent):
            self._put(Scalar(event.value, bool(event.style), line), line)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._start(isinstance(event, yaml.MappingStartEvent), line)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            closed = self._open.pop()
            self._put(closed.closed(), closed.line)

    def _start(self, is_mapping: bool, line: int) -> None:
        if len(self._open) >= DEPTH_LIMIT:
            raise DocumentError(TOO_DEEP, line)
        parent = self._open[-1] if self._open else None
        if parent is not None and parent.is_mapping and parent.key is None:
            raise DocumentError("a key must be a plain word, not a mapping or a list", line)
        path = parent.path_of_next() if parent is not None else ""
        self._open.append(_Open(is_mapping, line, path))

    def _put(self, node: Node, line: int) -> None:
        if not self._open:
            if self._documents:
                raise DocumentError("more than one document; keep one and drop the '---'", line)
            self._documents.append(node)
            return
        parent = self._open[-1]
        if not parent.is_mapping:
            parent.items.append(node)
        elif parent.key is None:
            assert isinstance(node, Scalar)
            parent.key = node
        else:
            self._put_entry(parent, parent.key, node)

    def _put_entry(self, parent: _Open, key: Scalar, node: Node) -> None:
        if key.text in parent.entries:
            self._problems.add(parent.path_of_next(), "said twice; keep one", key.line)
        else:
            parent.entries[key.text] = Entry(key.text, node, key.line)
        parent.key = None

    @property
    def document(self) -> Node | None:
        return self._documents[0] if self._documents else None


def parse_yaml(text: str, problems: Problems) -> Node | None:
    """The node of a YAML text; None when it holds no document.

    Raises DocumentError on bad syntax, anchors, aliases, tags, several documents, too much depth.
    """
    builder = _Builder(problems)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise DocumentError(
            f"not valid YAML: {error.problem or error.context}",
            mark.line + 1 if mark is not None else None,
        ) from None
    except yaml.YAMLError as error:
        raise DocumentError(f"not valid YAML: {str(error).splitlines()[0]}") from None
    return builder.document
