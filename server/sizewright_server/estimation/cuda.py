"""Which releases of CUDA there are, and which of them run on a GPU."""

from __future__ import annotations

from functools import cache
from typing import Any

from sizewright_server.estimation.data_files import data_of


@cache
def releases() -> tuple[str, ...]:
    """The known releases, major and minor, the oldest first."""
    return tuple(_table()["releases"]["value"])


def release_of(version: str) -> str:
    """Major and minor of a version, such as "12.4" of "12.4.1"."""
    return ".".join(version.split(".")[:2])


def cuda_lacks(release: str, compute_capability: str) -> str:
    """Which releases run on a compute capability such as "10.0", where this one does not.

    Empty where it does. Raises LookupError for a capability that is not in the data file.
    """
    number, mine = float(compute_capability), _numbers(release)
    for entry in _table()["runs_on"]:
        of = entry["applies_to"]
        if of["compute_capability_min"] <= number < of["compute_capability_below"]:
            if mine < _numbers(entry["first"]):
                return f"CUDA {entry['first']} or later"
            before = entry["before"]
            return f"a CUDA before {before}" if before and mine >= _numbers(before) else ""
    raise LookupError(f"no releases of CUDA are known for compute capability {compute_capability}")


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = data_of("sizewright_server.estimation", "cuda")
    return table
