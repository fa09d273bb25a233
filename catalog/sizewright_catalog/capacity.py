"""What a job can have of a node: nominal less named overheads."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from sizewright_catalog.values import GIB, MIB, Overhead


@cache
def _table() -> dict[str, Any]:
    text = resources.files("sizewright_catalog").joinpath("data/capacity.json")
    table: dict[str, Any] = json.loads(text.read_text(encoding="utf-8"))
    return table


def guest_visible_bytes(nominal_bytes: int) -> int:
    """What a guest sees of its memory where nobody measured it: a low share by size class."""
    return int(nominal_bytes * float(_of_size("guest_visible_fraction", nominal_bytes)["value"]))


def bare_metal_visible_bytes(nominal_bytes: int) -> int:
    """What a system without a hypervisor sees of its memory: the low share of those measured."""
    return int(nominal_bytes * float(_table()["bare_metal_visible_fraction"]["low"]))


def _of_size(table: str, size_bytes: int) -> dict[str, Any]:
    """The entry of a table for a size. Raises ValueError for one outside the measured classes."""
    for entry in _table()[table]:
        if entry["above_gib"] < size_bytes / GIB <= entry["up_to_gib"]:
            found: dict[str, Any] = entry
            return found
    raise ValueError(f"{size_bytes} bytes of memory is outside the measured classes")


def gpu_reserve_bytes(driver_total_bytes: int) -> int:
    """What driver and firmware of an NVIDIA device keep of the total the driver reports.

    `nvidia-smi` counts it in the total and never as used: no job reaches it. The largest seen
    for the size class, for devices without a figure of their own.
    """
    return int(_of_size("gpu_reserve", driver_total_bytes)["high"]) * MIB


def apple_working_set_bytes(memory_bytes: int) -> int:
    """The share of an Apple computer's memory its GPU may hold."""
    return int(memory_bytes * float(_of_size("apple_working_set", memory_bytes)["value"]))


def operating_system_bytes() -> int:
    """What the operating system of a node keeps."""
    return int(_table()["operating_system"]["value"]) * MIB


def notebook_bytes() -> int:
    """What a notebook server and its kernel hold beside the job's own imports."""
    return int(_table()["notebook"]["value"]) * MIB


def overheads(nominal_bytes: int, visible_bytes: int, *, measured: bool) -> tuple[Overhead, ...]:
    """The named overheads of a node."""
    how = (
        "memory visible to the operating system, measured"
        if measured
        else "low share by size class over measured AWS types"
    )
    system = str(_table()["operating_system"]["source"])
    return (
        Overhead("firmware-and-hypervisor", nominal_bytes - visible_bytes, how),
        Overhead("operating-system", operating_system_bytes(), system),
    )


def usable_bytes(visible_bytes: int) -> int:
    """What is left for jobs of what the guest sees; never below 0."""
    return max(0, visible_bytes - operating_system_bytes())


def kubelet_reserved_bytes(nominal_bytes: int) -> int:
    """What Kubernetes reserves on a node of that size, the eviction threshold included."""
    rule = _table()["kubelet"]
    left, reserved = nominal_bytes / GIB, 0.0
    for width, share in rule["memory_shares"]:
        part = min(left, width)
        reserved += part * share
        left -= part
    return int(reserved * GIB) + int(rule["eviction_mib"]) * MIB
