"""The catalog's file: one uncompressed `.npz`, immutable, named by the hash of its content.

Members are plain `.npy` arrays, so the file is read by any NumPy; this module maps them in place
instead of copying. Strings are dictionaries of UTF-8, a line each; `meta` is JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

#: Fixed time stamp of the members, so that equal content gives equal bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)
#: What this code reads and writes; another number is another meaning of the arrays.
FORMAT = 4

#: Sizes in a ZIP file (APPNOTE.TXT 4.3.7, 4.5.1), and the id of the extra field that pads.
LOCAL_HEADER, EXTRA_HEADER, PADDING_FIELD, ALIGNMENT = 30, 4, 0xD935, 64

#: What a torn file can raise while its headers are read.
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
)


class SnapshotError(Exception):
    """A snapshot file that is absent, torn or not of this format."""


def content_hash(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over names, types, shapes and bytes of every array but `meta`."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        if name == "meta":
            continue
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.data)
    return digest.hexdigest()


def text_array(lines: list[str]) -> NDArray[np.uint8]:
    """Strings as one array of UTF-8, a line each. Raises ValueError for a string with a newline."""
    if any("\n" in line for line in lines):
        raise ValueError("a dictionary entry must be one line")
    return np.frombuffer("".join(f"{line}\n" for line in lines).encode(), dtype=np.uint8)


def read_text(array: NDArray[Any]) -> list[str]:
    """The strings of a text array."""
    return array.tobytes().decode().split("\n")[:-1]


def write_snapshot(path: Path, arrays: Mapping[str, NDArray[Any]], meta: dict[str, Any]) -> str:
    """Writes a snapshot in one step and returns its version, the content hash.

    A reader sees the old file or the whole new one, never a part, whatever happens to this process
    or the power. Raises OSError, and leaves nothing behind, when it cannot be written.
    """
    version = content_hash(arrays)
    document = json.dumps({**meta, "version": version}, sort_keys=True, indent=1)
    members = {**arrays, "meta": np.frombuffer(document.encode(), dtype=np.uint8)}
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            with archive.open(_aligned(f"{name}.npy", file.tell()), "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(members[name]))
    return version


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` in one step, once it is whole and on the disk.

    Raises OSError; then, and for any other error inside, the old file stays and the new one goes.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aligned(name: str, at: int) -> zipfile.ZipInfo:
    """A member whose content starts at a multiple of 64 bytes, so that its numbers are aligned."""
    info = zipfile.ZipInfo(name, EPOCH)
    start = at + LOCAL_HEADER + len(name.encode()) + EXTRA_HEADER
    padding = -start % ALIGNMENT
    info.extra = struct.pack("<HH", PADDING_FIELD, padding) + bytes(padding)
    return info


def read_snapshot(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Maps every array of a snapshot, holds them against their hash and reads the metadata.

    Raises SnapshotError when the file is missing, torn, damaged or not of this format.
    """
    try:
        # A plain view of the map: a memmap's own indexing costs more than the arithmetic after it.
        mapped = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
        with zipfile.ZipFile(path) as archive:
            arrays = {
                info.filename.removesuffix(".npy"): _member(mapped, info)
                for info in archive.infolist()
            }
        meta: dict[str, Any] = json.loads(arrays.pop("meta").tobytes())
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        raise SnapshotError(f"{path} is not a readable catalog: {error}") from error
    if meta.get("format") != FORMAT:
        raise SnapshotError(f"{path} is of format {meta.get('format')}, not {FORMAT}")
    if content_hash(arrays) != meta.get("version"):
        raise SnapshotError(f"{path} is damaged: its content does not have the hash it states")
    return arrays, meta


def _member(mapped: NDArray[np.uint8], info: zipfile.ZipInfo) -> NDArray[Any]:
    """A stored `.npy` member as a view of the mapped file."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    header = info.header_offset
    # Local file header: name and extra lengths at offsets 26 and 28 (APPNOTE.TXT 4.3.7).
    name_length = int(mapped[header + 26]) | int(mapped[header + 27]) << 8
    extra_length = int(mapped[header + 28]) | int(mapped[header + 29]) << 8
    start = header + 30 + name_length + extra_length
    size = int(mapped[start + 8]) | int(mapped[start + 9]) << 8
    description = mapped[start + 10 : start + 10 + size].tobytes().decode("latin1")
    shape, dtype = _describe(description)
    first = start + 10 + size
    count = int(np.prod(shape, dtype=np.int64))
    return mapped[first : first + count * dtype.itemsize].view(dtype).reshape(shape)


def _describe(header: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an `.npy` header of version 1.0."""
    fields = json.loads(
        header.strip()
        .replace("'", '"')
        .replace("(", "[")
        .replace(",)", "]")
        .replace(")", "]")
        .replace("False", "false")
        .replace("True", "true")
        .replace(", }", "}")
    )
    return tuple(fields["shape"]), np.dtype(fields["descr"])


def metadata(
    arrays: Arrays,
    dropped: Mapping[str, int],
    build_time: str,
    as_of: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a snapshot says of itself. `build_time` is an ISO day or an ISO time in UTC.

    `as_of` is when each provider's rows were taken, where that is not when this was built.
    """
    providers = read_text(arrays["providers"])
    owners = arrays["type_provider"][arrays["offer_type"]]
    counts = np.bincount(owners, minlength=len(providers))
    return {
        "format": FORMAT,
        "build_day": build_time[:10],
        "build_time": build_time,
        "as_of": {name: (as_of or {}).get(name, build_time) for name in providers},
        "offers_by_provider": dict(zip(providers, counts.tolist(), strict=True)),
        "dropped": dict(sorted(dropped.items())),
    }
