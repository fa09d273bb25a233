"""Fills a protobuf message from a document by walking its descriptor.

What the contract says is all this knows: a new field in the proto is a new key in the file. The few
forms that people expect and the descriptor cannot tell are in `shorthands.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from sizewright_client.field_names import NamedField, fields_by_name, unknown_field
from sizewright_client.nodes import Entry, Mapping, Node, Scalar, Sequence
from sizewright_client.problems import Problems
from sizewright_client.quantities import count_with_unit
from sizewright_client.scalar_values import duration_parts, plain_text, value_of
from sizewright_client.shorthands import JSON_TEXT_MAPS, expanded, json_text

_DURATION = "google.protobuf.Duration"
_COUNT = "sizewright.v1.ParameterCount.count"


class MessageBuilder:
    """Fills messages; every problem of the whole document lands in `problems`."""

    def __init__(self, root: Descriptor, folder: Path, problems: Problems) -> None:
        self._root = root
        self._folder = folder
        self._problems = problems

    def fill(self, message: Message, node: Node, path: str) -> None:
        """Set the fields that `node` names. Wrong ones are noted under `path` and left unset."""
        try:
            node = expanded(_descriptor(message), node, self._folder)
        except ValueError as error:
            self._problems.add(path, str(error), node.line)
            return
        if message.DESCRIPTOR.full_name == _DURATION:
            self._fill_duration(message, node, path)
        elif isinstance(node, Mapping):
            self._fill_fields(message, node, path)
        else:
            self._problems.add(path, _mapping_wanted(_descriptor(message)), node.line)

    def _fill_fields(self, message: Message, node: Mapping, path: str) -> None:
        names = fields_by_name(_descriptor(message))
        said: dict[str, str] = {}
        for entry in node.entries:
            below = f"{path}.{entry.key}" if path else entry.key
            named = names.get(entry.key)
            if named is None:
                hint = unknown_field(_descriptor(message), entry.key, self._root)
                self._problems.add(below, hint, entry.line)
            elif _says(entry.value) and self._is_first(named.field, entry, said, path):
                below = f"{path}.{named.field.name}" if path else named.field.name
                self._set(message, named, entry.value, below)

    def _is_first(
        self, field: FieldDescriptor, entry: Entry, said: dict[str, str], path: str
    ) -> bool:
        """Whether neither the field nor another of its oneof was said before; notes it if so."""
        oneof = field.containing_oneof
        rival = oneof.name if oneof is not None and len(oneof.fields) > 1 else field.name
        before = said.setdefault(f"{oneof is None}:{rival}", entry.key)
        if before == entry.key:
            return True
        self._problems.add(
            path, f"{before!r} and {entry.key!r} cannot both be said; keep one", entry.line
        )
        return False

    def _set(self, message: Message, named: NamedField, node: Node, path: str) -> None:
        field = named.field
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._set_map(message, field, node, path)
        elif field.is_repeated:
            self._set_list(message, named, node, path)
        elif field.message_type is not None:
            below = getattr(message, field.name)
            below.SetInParent()
            self.fill(below, node, path)
        else:
            value = self._value(named, node, path)
            if value is not None:
                setattr(message, field.name, value)

    def _set_list(self, message: Message, named: NamedField, node: Node, path: str) -> None:
        items = node.items if isinstance(node, Sequence) else (node,)
        if isinstance(node, Mapping) and named.field.message_type is None:
            self._problems.add(path, "must be a list of values, not a mapping", node.line)
            return
        target = getattr(message, named.field.name)
        for index, item in enumerate(items):
            below = f"{path}[{index}]" if isinstance(node, Sequence) else path
            if named.field.message_type is not None:
                self.fill(target.add(), item, below)
            else:
                value = self._value(named, item, below)
                if value is not None:
                    target.append(value)

    def _set_map(self, message: Message, field: FieldDescriptor, node: Node, path: str) -> None:
        assert field.message_type is not None
        if not isinstance(node, Mapping):
            self._problems.add(path, "must be a mapping of names to values", node.line)
            return
        value_field = field.message_type.fields_by_name["value"]
        target = getattr(message, field.name)
        for entry in node.entries:
            below = f"{path}.{entry.key}"
            value: Any
            if field.full_name in JSON_TEXT_MAPS:
                value = json_text(entry.value)
            else:
                value = self._value(NamedField(value_field, "none"), entry.value, below)
            key = self._text(entry.key, below, entry.line)
            if value is not None and key is not None:
                target[key] = value

    def _value(self, named: NamedField, node: Node, path: str) -> Any:
        """The value of a scalar field; None, and a problem noted, when there is none."""
        if not isinstance(node, Scalar):
            self._problems.add(path, "must be a single value, not a mapping or a list", node.line)
            return None
        if node.is_null:
            self._problems.add(path, "must have a value", node.line)
            return None
        try:
            if named.field.full_name == _COUNT:
                node = Scalar(str(count_with_unit(node.text)), quoted=False, line=node.line)
            return value_of(named.field, node, named.unit)
        except ValueError as error:
            self._problems.add(path, str(error), node.line)
            return None

    def _text(self, text: str, path: str, line: int | None) -> str | None:
        try:
            return plain_text(text)
        except ValueError as error:
            self._problems.add(path, str(error), line)
            return None

    def _fill_duration(self, message: Any, node: Node, path: str) -> None:
        try:
            if not isinstance(node, Scalar):
                raise ValueError("must be a span of time with its unit, such as 30d or 12h")
            message.seconds, message.nanos = duration_parts(node.text)
        except ValueError as error:
            self._problems.add(path, str(error), node.line)


def _descriptor(message: Message) -> Descriptor:
    # protobuf's stubs offer its C type beside the public one; both have the same members.
    return cast(Descriptor, message.DESCRIPTOR)


def _says(node: Node) -> bool:
    """Whether a value is there: a key with nothing behind it leaves its field unset."""
    return not (isinstance(node, Scalar) and node.is_null)


def _mapping_wanted(message: Descriptor) -> str:
    names = ", ".join(field.name for field in message.fields[:8])
    more = ", ..." if len(message.fields) > 8 else ""
    return f"must be a mapping with {names}{more}" if names else "must be an empty mapping: {}"
