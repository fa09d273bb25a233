"""GPUs through NVML: the driver's totals, what it keeps for itself, and what is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

#: Handles of MIG instances are asked for by index up to what the device can hold.
MIG_ENABLED = 1


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG instance of it, as NVML reports it.

    Bytes. `reserved_bytes` is what driver and firmware keep: CUDA cannot hand it out. It is None
    where the driver is too old to tell it apart (it then counts as used). `total_bytes` is None
    on machines whose GPU shares the host's memory.
    """

    name: str
    total_bytes: int | None
    reserved_bytes: int | None
    used_bytes: int
    compute_capability: str
    processes: int = 0
    mig_instance: bool = False

    @property
    def free_bytes(self) -> int:
        """What a job could take now: total less reserved less used; 0 where not known."""
        return max(0, (self.total_bytes or 0) - (self.reserved_bytes or 0) - self.used_bytes)


@dataclass(frozen=True, slots=True)
class GpuReading:
    """The GPUs, or why there are none; and the driver's version."""

    gpus: tuple[Gpu, ...]
    reason: str
    driver_version: str = ""


def read_gpus(nvml: Any | None = None) -> GpuReading:
    """The GPUs NVML knows. `nvml` stands in for the pynvml module in tests."""
    if nvml is None:
        try:
            nvml = import_module("pynvml")
        except ImportError as error:
            return GpuReading((), f"NVML bindings are not installed: {error}")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return GpuReading((), f"NVML: {error}")
    try:
        version = _text(nvml.nvmlSystemGetDriverVersion())
        found = tuple(gpu for i in range(nvml.nvmlDeviceGetCount()) for gpu in _device(nvml, i))
    except nvml.NVMLError as error:
        return GpuReading((), f"NVML: {error}")
    finally:
        nvml.nvmlShutdown()
    return GpuReading(found, "" if found else "NVML reports no device", version)


def _device(nvml: Any, index: int) -> Iterator[Gpu]:
    """The GPU at an index, or its MIG instances: with MIG on, a job can have those alone."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    mode = _optional(nvml, nvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != MIG_ENABLED:
        yield _gpu(nvml, handle, _capability(nvml, handle), mig_instance=False)
        return
    for slot in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        instance = _optional(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot)
        if instance is not None:
            yield _gpu(nvml, instance, _capability(nvml, handle), mig_instance=True)


def _gpu(nvml: Any, handle: Any, capability: str, *, mig_instance: bool) -> Gpu:
    # The second version tells what driver and firmware keep apart from what jobs use.
    memory = _optional(nvml, nvml.nvmlDeviceGetMemoryInfo, handle, version=nvml.nvmlMemory_v2)
    reserved = int(memory.reserved) if memory is not None else None
    if memory is None:
        memory = _optional(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    jobs = _optional(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return Gpu(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total_bytes=int(memory.total) if memory is not None else None,
        reserved_bytes=reserved,
        used_bytes=int(memory.used) if memory is not None else 0,
        compute_capability=capability,
        processes=len(jobs or ()),
        mig_instance=mig_instance,
    )


def _capability(nvml: Any, handle: Any) -> str:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return f"{major}.{minor}"


def _optional(nvml: Any, call: Callable[..., Any], *given: Any, **named: Any) -> Any | None:
    """What a call answers, or None where this driver or device does not support it."""
    absent = (
        nvml.NVMLError_NotSupported,
        nvml.NVMLError_FunctionNotFound,
        nvml.NVMLError_NotFound,
        nvml.NVMLError_ArgumentVersionMismatch,
    )
    try:
        return call(*given, **named)
    except absent:
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
