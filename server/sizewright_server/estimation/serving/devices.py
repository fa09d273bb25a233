"""GPUs as engines see them: totals by CUDA, links, and which batches they default to."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.serving.run import ServingDevice

GIB = 2**30
_BOUNDS = ("low", "value", "high")
#: vLLM's larger default batches: devices like H100 and MI300X (arg_utils.py), not A100.
ROOMY_FROM = {"nvidia": 70 * GIB, "amd": 100 * GIB}
#: Links slower than this are bridges and PCIe.
LINK_GB_PER_SECOND = 300


@cache
def _table() -> dict[str, Any]:
    text = resources.files("sizewright_server.estimation.serving").joinpath("data/devices.json")
    table: dict[str, Any] = json.loads(text.read_text(encoding="utf-8"))
    return table


def engine_total(name: str, driver_bytes: int) -> ByteRange:
    """What CUDA reports as a device's total; from the driver's where it is not listed."""
    entry = _table().get(name)
    if entry is not None:
        return ByteRange(*(int(entry[k] * GIB) for k in _BOUNDS))
    share = _table()["share-of-driver-total"]
    return ByteRange(*(int(share[k] * driver_bytes) for k in _BOUNDS))


def serving_device(
    name: str,
    vendor: str,
    driver_bytes: int,
    link_gb_per_second: float,
    capability: float = 0.0,
) -> ServingDevice:
    """A device by its figures. `driver_bytes` is the driver's total."""
    least = ROOMY_FROM.get(vendor)
    roomy = least is not None and driver_bytes >= least and not name.startswith("A100")
    linked = link_gb_per_second >= LINK_GB_PER_SECOND
    return ServingDevice(name, engine_total(name, driver_bytes), vendor, linked, roomy, capability)
