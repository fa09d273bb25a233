"""Reads the headers of safetensors files: names, shapes and sizes of tensors, never their data.

A file claims everything about itself, so each claim is held against the file's real size before
anything of that size is read. The format: eight bytes of header length (little endian), a JSON
header, then data (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizewright_client.model_files import located

#: The format's own limit on a header.
HEADER_LIMIT_BYTES = 100_000_000
#: All headers of a model together; the largest public models stay below 40 MB.
HEADERS_LIMIT_BYTES = 256 * 1024**2
INDEX_LIMIT_BYTES = 64 * 1024**2
MOST_FILES = 2_000
MOST_TENSORS = 1_000_000
MOST_DIMENSIONS = 16
#: Marks of JSON in a header at most: a tensor has three brackets, ten quotes and a few commas, and
#: a header of nothing but marks would take twenty times its size to read.
MOST_MARKS = {
    b"[": 2 * MOST_TENSORS,
    b"{": 2 * MOST_TENSORS,
    b'"': 12 * MOST_TENSORS,
    b",": 24_000_000,
}
INDEX_NAME = "model.safetensors.index.json"
#: What is loaded of a folder without an index, whatever lies beside it (adapters, other formats).
WHOLE_NAME = "model.safetensors"
#: Bits of an element by the format's words.
BITS = {
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "F16": 16,
    "BF16": 16,
    "I16": 16,
    "U16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
_NUMBERED = re.compile(r"\.\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class StoredTensors:
    """Equal tensors of a model: `name` has `*` for layer and expert numbers."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    stored_bytes: int


def read_model(written: str, folder: Path) -> list[StoredTensors]:
    """The tensors of a file or of a folder's files, equal ones together.

    A relative path starts at `folder`. Raises ValueError, naming the file, for one that is missing,
    cut short, or claims what it does not hold; no file is read beyond its header.
    """
    path = located(written, folder)
    read = 0
    found: dict[tuple[str, str, tuple[int, ...]], list[int]] = {}
    names: set[str] = set()
    for file in _files(path):
        header, data_bytes, size = _header(file, HEADERS_LIMIT_BYTES - read)
        read += size
        for name, dtype, shape, stored in _tensors(header, data_bytes, file):
            if name in names:
                raise ValueError(f"{file}: tensor {name[:60]!r} is in another file too")
            names.add(name)
            if len(names) > MOST_TENSORS:
                raise ValueError(f"{path} lists more than {MOST_TENSORS:,} tensors")
            entry = found.setdefault((_NUMBERED.sub(".*", name), dtype, shape), [0, 0])
            entry[0] += 1
            entry[1] += stored
    if not names:
        raise ValueError(f"{path} holds no tensor")
    return [
        StoredTensors(name, dtype, shape, count, stored)
        for (name, dtype, shape), (count, stored) in found.items()
    ]


def beside(written: str, folder: Path) -> Path | None:
    """The config.json beside the files; None when there is none."""
    path = located(written, folder)
    config = (path if path.is_dir() else path.parent) / "config.json"
    return config if config.is_file() else None


def _files(path: Path) -> list[Path]:
    """The files of a model: one, those of an index, or every one in the folder."""
    try:
        if path.is_dir():
            index = path / INDEX_NAME
            files = _of_index(index) if index.exists() else _of_folder(path)
        else:
            files = _of_index(path) if path.name.endswith(".index.json") else [path]
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if not files:
        raise ValueError(f"{path} holds no .safetensors file")
    if len(files) > MOST_FILES:
        raise ValueError(f"{path} has {len(files):,} files; at most {MOST_FILES:,} are read")
    return files


def _of_folder(folder: Path) -> list[Path]:
    """The one file libraries load, or else every one."""
    whole = folder / WHOLE_NAME
    return [whole] if whole.exists() else sorted(folder.glob("*.safetensors"))


def _of_index(index: Path) -> list[Path]:
    """The files an index names, all of them beside it."""
    if _regular(index) > INDEX_LIMIT_BYTES:
        raise ValueError(f"{index} is larger than {INDEX_LIMIT_BYTES // 1024**2} MiB")
    tree = _json(index.read_bytes(), index)
    names = tree.get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise ValueError(f"{index} has no weight_map of tensors to file names")
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"{index} names {name[:60]!r}, which is not a file beside it")
    return [index.parent / name for name in files]


def _regular(path: Path) -> int:
    """The size of a regular file; pipes and devices are refused unread."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ValueError(f"no such file: {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file")
    return status.st_size


def _header(path: Path, allowed: int) -> tuple[dict[str, Any], int, int]:
    """The header, the bytes of data behind it, and the header's own size."""
    whole = _regular(path)
    if whole < 8:
        raise ValueError(f"{path} is cut short: {whole} bytes are no safetensors file")
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > HEADER_LIMIT_BYTES:
                raise ValueError(
                    f"{path} claims a header of {length:,} bytes; the format allows "
                    f"{HEADER_LIMIT_BYTES:,}"
                )
            if length > whole - 8:
                raise ValueError(
                    f"{path} is cut short: its header has {length:,} bytes and the file {whole:,}"
                )
            if length > allowed:
                raise ValueError(f"{path}: the headers together pass {HEADERS_LIMIT_BYTES:,} bytes")
            content = file.read(length)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(content) < length:
        raise ValueError(f"{path} is cut short: its header ends after {len(content):,} bytes")
    return _json(content, path), whole - 8 - length, length


def _json(content: bytes, path: Path) -> dict[str, Any]:
    for mark, most in MOST_MARKS.items():
        if content.count(mark) > most:
            words = f"more than {most:,} times {mark.decode()!r}"
            raise ValueError(f"{path} has a header that is no list of tensors: {words}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("a name twice")
        return made

    try:
        tree = json.loads(content.decode("utf-8"), object_pairs_hook=once)
    except UnicodeDecodeError:
        raise ValueError(f"{path} has a header that is not UTF-8 text") from None
    except RecursionError:
        raise ValueError(f"{path} has a header that is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{path} has a header that is not JSON: {str(error)[:80]}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path} has a header that is not a JSON object")
    return tree


def _tensors(
    header: dict[str, Any], data_bytes: int, path: Path
) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    """Name, type, shape and bytes of each tensor, its claims held against the file."""
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, start, end = _entry(name, entry, path)
        if not 0 <= start <= end <= data_bytes:
            raise ValueError(
                f"{path} is cut short or lies: tensor {name[:60]!r} ends at byte {end:,} of "
                f"{data_bytes:,}"
            )
        if end - start != _bytes_of(dtype, shape):
            raise ValueError(
                f"{path}: tensor {name[:60]!r} of {dtype} {list(shape)} takes "
                f"{_bytes_of(dtype, shape):,} bytes and claims {end - start:,}"
            )
        spans.append((start, end))
        yield name, dtype, shape, end - start
    _refuse_overlap(spans, data_bytes, path)


def _entry(name: str, entry: object, path: Path) -> tuple[str, tuple[int, ...], int, int]:
    words = f"{path}: tensor {name[:60]!r}"
    if not isinstance(entry, dict):
        raise ValueError(f"{words} is not described")
    dtype = entry.get("dtype")
    shape, offsets = _whole_numbers(entry.get("shape")), _whole_numbers(entry.get("data_offsets"))
    if dtype not in BITS:
        raise ValueError(f"{words} has the unknown type {str(dtype)[:20]!r}")
    if shape is None or len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"{words} has no shape of whole numbers")
    if offsets is None or len(offsets) != 2:
        raise ValueError(f"{words} has no pair of data_offsets")
    return str(dtype), shape, offsets[0], offsets[1]


def _whole_numbers(value: object) -> tuple[int, ...] | None:
    """A list of whole numbers from 0; None for anything else."""
    if not isinstance(value, list):
        return None
    for item in value:
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < 2**53:
            return None
    return tuple(value)


def _bytes_of(dtype: str, shape: Iterable[int]) -> int:
    elements = 1
    for size in shape:
        elements *= size
    return -(-elements * BITS[dtype] // 8)


def _refuse_overlap(spans: list[tuple[int, int]], data_bytes: int, path: Path) -> None:
    """Tensors lie one behind the other and fill the file, as the format wants."""
    at = 0
    for start, end in sorted(spans):
        if start != at:
            words = "overlap" if start < at else "leave a hole"
            raise ValueError(f"{path}: tensors {words} at byte {min(start, at):,}")
        at = end
    if at != data_bytes:
        raise ValueError(
            f"{path} has {data_bytes:,} bytes of data and its tensors take {at:,}: cut short, or "
            "not a safetensors file"
        )


__all__ = ["StoredTensors", "beside", "read_model"]
