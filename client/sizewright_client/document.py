"""A YAML or JSON document, read from its text.

Anchors, aliases, tags and duplicate keys are refused, and depth is bounded: a small file cannot
grow into a large one.
"""

from __future__ import annotations

import json

from sizewright_client.json_document import parse_json
from sizewright_client.nodes import DocumentError, Node
from sizewright_client.problems import Problems


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
