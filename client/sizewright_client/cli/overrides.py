"""Options that take the place of what a request file says."""

from __future__ import annotations

from collections.abc import Sequence as Values
from pathlib import Path

from google.protobuf.message import Message

from sizewright.v1 import sizing_service_pb2
from sizewright_client.cli.failures import UsageError
from sizewright_client.document import Entry, Mapping, Node, Scalar, Sequence
from sizewright_client.message_builder import MessageBuilder
from sizewright_client.problems import Problems


def override(
    request: sizing_service_pb2.RecommendRequest, constraints: dict[str, str | Values[str] | None]
) -> None:
    """Replace the constraints that an option gave; None and empty lists leave the file's.

    Values are read just as the file's are. Raises UsageError with every wrong one.
    """
    given = {name: value for name, value in constraints.items() if value}
    if not given:
        return
    problems = Problems()
    builder = MessageBuilder(request.DESCRIPTOR, Path(), problems)
    said = sizing_service_pb2.RecommendRequest()
    entries = tuple(Entry(name, _node(value)) for name, value in given.items() if value)
    builder.fill(said.constraints, Mapping(entries), "constraints")
    if problems.found:
        raise UsageError("; ".join(str(problem) for problem in problems.found))
    replaced: Message = request.constraints
    for field, _ in said.constraints.ListFields():
        replaced.ClearField(field.name)
    request.constraints.MergeFrom(said.constraints)


def _node(value: str | Values[str]) -> Node:
    if isinstance(value, str):
        return Scalar(value, quoted=True)
    words = [word.strip() for item in value for word in item.split(",")]
    return Sequence(tuple(Scalar(word, quoted=True) for word in words if word))
