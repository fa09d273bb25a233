"""Machine files: YAML or JSON to the machines it describes.

The file is one machine, a list of machines, or `machines: [...]`, each with the forms a request
file takes for its own `machines`: sizes with units, dollars, a model instead of figures.
"""

from __future__ import annotations

from sizewright.v1 import catalog_pb2, sizing_service_pb2
from sizewright_client.document import parse_document
from sizewright_client.message_builder import MessageBuilder
from sizewright_client.nodes import (
    DocumentError,
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
)
from sizewright_client.problems import Problems, RequestFileError
from sizewright_client.request_file import read_request_text

_REQUEST = sizing_service_pb2.RecommendRequest.DESCRIPTOR
_MACHINES = "machines"


def load_machines(path: str) -> list[catalog_pb2.Machine]:
    """The machines of a file, or of standard input for "-".

    Raises UnreadableRequestFileError when there is nothing to read, else RequestFileError with
    every problem of the file.
    """
    source = read_request_text(path)
    problems = Problems()
    try:
        node = parse_document(source.text, is_json=source.is_json, problems=problems)
    except DocumentError as error:
        raise RequestFileError(source.name, (*problems.found, error.problem)) from None
    request = sizing_service_pb2.RecommendRequest()
    if node is None or (isinstance(node, Scalar) and node.is_null):
        problems.add("", "is empty; it must describe a machine at least")
    else:
        MessageBuilder(_REQUEST, source.folder, problems).fill(request, _listed(node), "")
    if not problems.found and not request.machines:
        problems.add("", "describes no machine")
    if problems.found:
        raise RequestFileError(source.name, problems.found)
    return list(request.machines)


def _listed(node: Node) -> Node:
    """The node as `machines: [...]`."""
    if isinstance(node, Mapping) and _MACHINES in node.keys:
        return node
    items = node if isinstance(node, Sequence) else Sequence((node,), node.line)
    return Mapping((Entry(_MACHINES, items, node.line),), node.line)
