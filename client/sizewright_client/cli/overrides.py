"""Options that take the place of what a request file says."""

from __future__ import annotations

from collections.abc import Sequence as Values
from pathlib import Path
from typing import TypeAlias

from google.protobuf.message import Message

from sizewright.v1 import sizing_service_pb2
from sizewright_client.cli.failures import UsageError
from sizewright_client.message_builder import MessageBuilder
from sizewright_client.nodes import Entry, Mapping, Node, Scalar, Sequence
from sizewright_client.problems import Problems

Options: TypeAlias = dict[str, str | Values[str] | None]


def override(request: sizing_service_pb2.RecommendRequest, constraints: Options) -> None:
    """Replace the constraints that an option gave; None and empty lists leave the file's.

    Values are read just as the file's are. Raises UsageError with every wrong one.
    """
    said = _read(request, constraints, "constraints")
    _replace(request.constraints, said.constraints)


def override_root(request: sizing_service_pb2.RecommendRequest, fields: Options) -> None:
    """The same for fields of the request itself."""
    _replace(request, _read(request, fields, ""))


def _read(
    request: sizing_service_pb2.RecommendRequest, options: Options, section: str
) -> sizing_service_pb2.RecommendRequest:
    """What the options say, as a request of its own."""
    problems = Problems()
    said = sizing_service_pb2.RecommendRequest()
    into: Message = said.constraints if section else said
    entries = tuple(Entry(name, _node(value)) for name, value in options.items() if value)
    if entries:
        builder = MessageBuilder(request.DESCRIPTOR, Path(), problems)
        builder.fill(into, Mapping(entries), section)
    if problems.found:
        raise UsageError("; ".join(str(problem) for problem in problems.found))
    return said


def _replace(message: Message, said: Message) -> None:
    for field, _ in said.ListFields():
        message.ClearField(field.name)
    message.MergeFrom(said)


def _node(value: str | Values[str]) -> Node:
    if isinstance(value, str):
        return Scalar(value, quoted=True)
    words = [word.strip() for item in value for word in item.split(",")]
    return Sequence(tuple(Scalar(word, quoted=True) for word in words if word))
