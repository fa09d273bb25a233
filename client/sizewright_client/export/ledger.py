"""Which of a message's settings a form has said, so that none is left out unnoticed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import Message


class Ledger:
    """The settings a message states, each until a writer takes it.

    Paths are those of a request file, below `prefix`: `optimizer.name` for
    `training.optimizer.name`. What is not stated has its default and is nobody's duty.
    """

    def __init__(self, prefix: str, message: Message) -> None:
        self._prefix, self._message = prefix, message
        self._left = dict(_leaves(message, ""))

    def take(self, path: str) -> Any:
        """A setting's value, which is now said."""
        self._left.pop(path, None)
        return self.peek(path)

    def peek(self, path: str) -> Any:
        """A setting's value: of an enum in kebab case, "" for unspecified."""
        *parents, name = path.split(".")
        node = self._message
        for parent in parents:
            node = getattr(node, parent)
        return _plain(node.DESCRIPTOR.fields_by_name[name], getattr(node, name))

    def states(self, path: str) -> bool:
        """Whether a setting is stated and nobody took it."""
        return path in self._left

    def describes(self, *paths: str) -> None:
        """Takes what describes the data or is settled elsewhere: whole subtrees by their name."""
        for path in paths:
            for left in [p for p in self._left if p == path or p.startswith(path + ".")]:
                del self._left[left]

    def left(self) -> list[str]:
        """What is stated and was not taken, such as "training.kernels.norm: fused"."""
        return [f"{self._prefix}.{path}: {value}" for path, value in self._left.items()]


def _leaves(message: Message, prefix: str) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if field.message_type is not None and not field.is_repeated:
            yield from _leaves(value, path + ".")
        else:
            yield path, _shown(_plain(field, value))


def _plain(field: Any, value: Any) -> Any:
    if field.enum_type is None:
        if isinstance(value, Mapping):
            return dict(value)
        return list(value) if field.is_repeated else value
    shared = f"{_screaming(field.enum_type.name)}_"
    name = field.enum_type.values_by_number[value].name.removeprefix(shared)
    return "" if name == "UNSPECIFIED" else name.lower().replace("_", "-")


def _screaming(name: str) -> str:
    """OptimizerStep as OPTIMIZER_STEP."""
    return "".join(f"_{c}" if c.isupper() else c.upper() for c in name).removeprefix("_")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in sorted(value.items()))
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value)
