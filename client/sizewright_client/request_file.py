"""Request files: YAML or JSON to a RecommendRequest.

The file is a `RecommendRequest {workload, constraints, objective}`; a bare workload is taken as
one. Beside the shorthands of `shorthands.py` it takes

- kebab-case enum values: `purchase: [on-demand, spot]`, `objective: cost-per-hour`;
- sizes with their unit for every field in bytes: `driver_total: 80GiB`;
- dollars for every field in nano-dollars, under its name without the unit:
  `max_cost_per_hour: "12.50"`;
- spans of time: `max_price_age: 30d`; shares in percent: `headroom: 10%`;
- one value where a list is asked: `providers: aws`.

Nothing else is checked here: whether a value makes sense is the server's to say.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sizewright.v1 import sizing_service_pb2
from sizewright_client.document import parse_document
from sizewright_client.field_names import fields_by_name
from sizewright_client.message_builder import MessageBuilder
from sizewright_client.nodes import (
    DocumentError,
    Entry,
    Mapping,
    Node,
    Scalar,
)
from sizewright_client.problems import (
    Problem,
    Problems,
    RequestFileError,
    UnreadableRequestFileError,
)

SIZE_LIMIT_BYTES = 1024 * 1024
STDIN = "-"

_REQUEST = sizing_service_pb2.RecommendRequest.DESCRIPTOR


@dataclass(frozen=True, slots=True)
class RequestText:
    """The text of a request file. `folder` is where the relative paths in it start."""

    name: str
    text: str
    folder: Path
    is_json: bool | None


def load_request(path: str) -> sizing_service_pb2.RecommendRequest:
    """The request of a file, or of standard input for "-".

    Raises UnreadableRequestFileError when there is nothing to read, else RequestFileError with
    every problem of the file.
    """
    return parse_request(read_request_text(path))


def read_request_text(path: str) -> RequestText:
    """The text of a file, or of standard input for "-". Raises RequestFileError."""
    if path == STDIN:
        content = _read(STDIN, lambda: sys.stdin.buffer.read(SIZE_LIMIT_BYTES + 1))
        return RequestText("standard input", _decoded("standard input", content), Path(), None)
    file = Path(path)

    def read() -> bytes:
        with file.open("rb") as opened:
            return opened.read(SIZE_LIMIT_BYTES + 1)

    is_json = True if file.suffix.lower() == ".json" else None
    return RequestText(path, _decoded(path, _read(path, read)), file.parent, is_json)


def parse_request(source: RequestText) -> sizing_service_pb2.RecommendRequest:
    """The request that a text says. Raises RequestFileError with every problem found."""
    problems = Problems()
    try:
        node = parse_document(source.text, is_json=source.is_json, problems=problems)
    except DocumentError as error:
        raise RequestFileError(source.name, (*problems.found, error.problem)) from None
    request = sizing_service_pb2.RecommendRequest()
    if node is None or (isinstance(node, Scalar) and node.is_null):
        problems.add("", "is empty; it must hold at least a workload")
    elif not isinstance(node, Mapping):
        problems.add("", "must be a mapping with workload, constraints, objective", node.line)
    else:
        builder = MessageBuilder(_REQUEST, source.folder, problems)
        builder.fill(request, _with_workload(node), "")
    if problems.found:
        raise RequestFileError(source.name, problems.found)
    return request


def _with_workload(node: Mapping) -> Node:
    """The node itself, or the request around it when it is a bare workload."""
    workload = _REQUEST.fields_by_name["workload"].message_type
    assert workload is not None
    request_names, workload_names = fields_by_name(_REQUEST), fields_by_name(workload)
    as_request = sum(key in request_names for key in node.keys)
    as_workload = sum(key in workload_names for key in node.keys)
    if as_request or not node.keys:
        return node
    if not as_workload and any(get_close_matches(key, request_names) for key in node.keys):
        return node
    return Mapping((Entry("workload", node, node.line),), node.line)


def _read(name: str, read: Callable[[], bytes]) -> bytes:
    try:
        content = read()
    except FileNotFoundError:
        reason = "no such file"
    except IsADirectoryError:
        reason = "is a directory; a YAML or JSON file is wanted"
    except (OSError, ValueError) as error:
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        return content
    raise UnreadableRequestFileError(name, (Problem("", reason),))


def _decoded(name: str, content: bytes) -> str:
    if len(content) > SIZE_LIMIT_BYTES:
        reason = f"is larger than {SIZE_LIMIT_BYTES // 1024} KiB, the most a request file may have"
        raise RequestFileError(name, (Problem("", reason),))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        reason = "is not UTF-8 text; save it as UTF-8 YAML or JSON"
        raise RequestFileError(name, (Problem("", reason, line),)) from None
