"""Files beside a request that describe a model. The client reads them; a server never does."""

from __future__ import annotations

import json
from pathlib import Path

SIZE_LIMIT_BYTES = 1024 * 1024


def read_json_object(written: str, folder: Path) -> str:
    """The text of a JSON object in a file, `written` being its path as the request says it.

    A relative path starts at `folder`; for a directory its `config.json` is read. Raises ValueError
    with what would be right: only a JSON object leaves this machine, never another file's text.
    """
    path = located(written, folder)
    try:
        if path.is_dir():
            path = path / "config.json"
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise ValueError(f"no such file: {path}; give the path of a JSON file") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > SIZE_LIMIT_BYTES:
        raise ValueError(f"{path} is larger than {SIZE_LIMIT_BYTES // 1024} KiB")
    return _json_object(content, path)


def located(written: str, folder: Path) -> Path:
    """The path as a request says it, from `folder` on. Raises ValueError for one that is none."""
    if "\0" in written:
        raise ValueError("must be a path, which has no zero byte")
    try:
        return folder / Path(written).expanduser()
    except RuntimeError:
        raise ValueError(f"{written!r} starts in the home of a user not known here") from None


def _json_object(content: bytes, path: Path) -> str:
    try:
        text = content.decode("utf-8-sig")
        tree = json.loads(text)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; a JSON file is wanted") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deep for a model's configuration") from None
    except ValueError:
        raise ValueError(f"{path} is not valid JSON; a JSON file is wanted") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must hold one JSON object, such as a Hugging Face config.json")
    return text
