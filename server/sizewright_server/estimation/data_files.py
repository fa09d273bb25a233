"""Data files, which lie beside the code that reads them."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def data_of(package: str, name: str) -> Any:
    """What a package's `data/{name}.json` holds, read each time: callers keep what they make of it.

    Raises FileNotFoundError where there is no such file.
    """
    text = resources.files(package).joinpath(f"data/{name}.json").read_text(encoding="utf-8")
    return json.loads(text)
