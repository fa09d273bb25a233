"""Whatever a file holds, reading it gives a request or a RequestFileError."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from sizewright.v1 import sizing_service_pb2
from sizewright_client.field_names import fields_by_name
from sizewright_client.problems import RequestFileError
from sizewright_client.request_file import RequestText, parse_request


def _names() -> list[str]:
    queue = [sizing_service_pb2.RecommendRequest.DESCRIPTOR]
    names: set[str] = set()
    for message in queue:
        names |= fields_by_name(message).keys()
        inner = [field.message_type for field in message.fields if field.message_type]
        queue += [message for message in inner if message not in queue]
    return sorted(names)


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(
        ["auto", "on-demand", "40GiB", "30d", "8B", "1e400", "12.50", "./x", "\0", "~"]
    )
)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(_names()) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=25,
)


def _read(text: str, is_json: bool | None) -> None:
    with contextlib.suppress(RequestFileError):
        parse_request(RequestText("job", text, Path("/nonexistent"), is_json))


@given(st.text())
def test_any_text_is_a_request_or_a_request_file_error(text: str) -> None:
    _read(text, None)
    _read(text, True)


@given(_TREES)
def test_any_json_tree_is_a_request_or_a_request_file_error(tree: object) -> None:
    _read(json.dumps(tree), True)


@given(_TREES)
def test_any_yaml_tree_is_a_request_or_a_request_file_error(tree: object) -> None:
    _read(yaml.safe_dump(tree), None)


@given(st.binary(max_size=300))
def test_any_bytes_of_a_file_are_a_request_or_a_request_file_error(content: bytes) -> None:
    _read(content.decode("utf-8", "surrogateescape"), None)
