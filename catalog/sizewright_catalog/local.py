"""Profiles the machine this runs on: memory really there, and GPUs through NVML."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sizewright_catalog.capacity import operating_system_bytes, usable_bytes
from sizewright_catalog.devices import find_device
from sizewright_catalog.values import Device, Machine, Overhead

MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
CGROUP = Path("/sys/fs/cgroup")
#: cgroup v1 writes "no limit" as a number near 2**63.
NO_LIMIT = 2**60


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML reports it, in bytes."""

    name: str
    driver_total_bytes: int
    used_bytes: int
    compute_capability: str


@dataclass(frozen=True, slots=True)
class LocalProfile:
    """The machine, its GPUs one by one, and why there are none where there are none."""

    machine: Machine
    gpus: tuple[Gpu, ...]
    no_gpu_reason: str
    memory_available_bytes: int


def profile(nvml: Any | None = None, cgroup: Path = CGROUP) -> LocalProfile:
    """Profiles this machine. `nvml` stands in for the pynvml module in tests."""
    import psutil

    memory = psutil.virtual_memory()
    limit = cgroup_limit_bytes(cgroup)
    total = min(int(memory.total), limit) if limit else int(memory.total)
    gpus, reason = _gpus(nvml)
    device, count = _device(gpus)
    system = operating_system_bytes()
    # Inside a container the system's own memory is outside the limit.
    contained = limit is not None and limit < int(memory.total)
    node = Overhead("operating-system", min(system, total), "as for every node")
    overheads = () if contained else (node,)
    machine = Machine(
        name="machines/local",
        vcpus=os.cpu_count() or 1,
        cpu_architecture=MACHINES.get(platform.machine().lower(), platform.machine().lower()),
        host_nominal_bytes=total,
        host_usable_bytes=usable_bytes(total) if overheads else total,
        overheads=overheads,
        device=device,
        device_count=count,
        slice=1.0,
        gpu_usable_bytes=min((gpu.driver_total_bytes for gpu in gpus), default=0),
    )
    return LocalProfile(machine, gpus, reason, int(memory.available))


def cgroup_limit_bytes(root: Path = CGROUP) -> int | None:
    """The memory limit of this process's control group, v2 or v1; None without one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < NO_LIMIT:
            return int(text)
    return None


def _gpus(nvml: Any | None) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs NVML knows, or why it knows none."""
    if nvml is None:
        try:
            nvml = import_module("pynvml")
        except ImportError as error:
            return (), f"NVML bindings are not installed: {error}"
    return _read_gpus(nvml)


def _read_gpus(nvml: Any) -> tuple[tuple[Gpu, ...], str]:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return (), f"NVML: {error}"
    try:
        found = tuple(_gpu(nvml, i) for i in range(nvml.nvmlDeviceGetCount()))
    except nvml.NVMLError as error:
        return (), f"NVML: {error}"
    finally:
        nvml.nvmlShutdown()
    return found, "" if found else "NVML reports no device"


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = nvml.nvmlDeviceGetName(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    text = name.decode() if isinstance(name, bytes) else str(name)
    return Gpu(text, int(memory.total), int(memory.used), f"{major}.{minor}")


def _device(gpus: tuple[Gpu, ...]) -> tuple[Device | None, int]:
    """The device the GPUs have in common: of unequal ones, those like the first.

    The driver's own total and capability hold, whatever the table says of the name.
    """
    if not gpus:
        return None, 0
    first = gpus[0]
    alike = [gpu for gpu in gpus if gpu.name == first.name]
    table = find_device(first.name) or find_device(first.name.removeprefix("NVIDIA ").strip())
    device = Device(
        name=table.name if table else first.name,
        vendor="nvidia",
        architecture=table.architecture if table else "",
        nominal_bytes=table.nominal_bytes if table else first.driver_total_bytes,
        driver_total_bytes=min(gpu.driver_total_bytes for gpu in alike),
        compute_capability=first.compute_capability,
        link_gb_per_second=table.link_gb_per_second if table else 0.0,
        evidence="NVML",
    )
    return device, len(alike)
