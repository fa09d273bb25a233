"""GPUs as engines see them: totals by CUDA, links, and which batches they default to."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.serving.run import ANY_DEVICE, ServingDevice

GIB = 2**30
_BOUNDS = ("low", "value", "high")
#: GPUs that vLLM gives small default batches whatever their memory (arg_utils.py).
MODEST = ("A100", "GB10")
#: No AMD card has 70 to 100 GiB: it is an APU or a slice, and the one log of such shows the small
#: default batches (2.4 GiB of activations with 248,320 rows of vocabulary on 80 GiB).
AMD_CARD_FROM = 100 * GIB
#: Memory from which default batches change: vLLM's arg_utils.py, SGLang's server_args.py.
SIZES = {
    "vllm": (70 * GIB, 160 * GIB),
    "sglang": (20 * GIB, 25 * GIB, 35 * GIB, 60 * GIB, 81 * GIB, 90 * GIB, 160 * GIB),
}
#: Links slower than this are bridges and PCIe.
LINK_GB_PER_SECOND = 300
#: Compute capability whose cuBLAS workspace is larger.
HOPPER = 9


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = data_of("sizewright_server.estimation.serving", "devices")
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
    linked = link_gb_per_second >= LINK_GB_PER_SECOND
    total = engine_total(name, driver_bytes)
    modest = name.startswith(MODEST) or (vendor == "amd" and driver_bytes < AMD_CARD_FROM)
    return ServingDevice(name, total, vendor, linked, capability, driver_bytes, modest)


@lru_cache(maxsize=1024)
def alone(device: ServingDevice) -> ServingDevice:
    """The device where no other is talked to: its links do not matter."""
    return replace(device, linked=True)


def device_class(device: ServingDevice, engine: str) -> ServingDevice:
    """What an engine's least need depends on of a device, without its size: equal for many GPUs.

    A device that is not known stays as it is.
    """
    if not device.sized_bytes:
        return device
    sizes = SIZES.get(engine)
    if sizes is None:
        hopper = 9.0 if int(device.capability) == HOPPER else 8.0
        return replace(ANY_DEVICE, name="a GPU of its kind", capability=hopper)
    reached = [size for size in sizes if size <= device.sized_bytes]
    usual = device.linked and not device.modest and device.vendor == ANY_DEVICE.vendor
    if engine == "vllm" and usual and reached == [sizes[0]]:
        return ANY_DEVICE
    # Below the first size nothing is taken back from a modest GPU.
    modest = device.modest and bool(reached)
    return replace(
        ANY_DEVICE,
        name="a GPU of its kind",
        vendor=device.vendor,
        linked=device.linked,
        modest=modest,
        sized_bytes=max(reached, default=GIB),
    )
