"""From readings of this machine to a machine that can be planned for."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sizewright_catalog.capacity import gpu_reserve_bytes, operating_system_bytes
from sizewright_catalog.devices import find_by_driver_name
from sizewright_catalog.local.apple import apple_gpu
from sizewright_catalog.local.cgroups import MEMBERSHIP, ROOT, Limits, MemoryLimit, read_limits
from sizewright_catalog.local.disks import SHARED_MEMORY, Disk, read_disks
from sizewright_catalog.local.gpus import Gpu, GpuReading, read_gpus
from sizewright_catalog.values import Device, Machine, Overhead

ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
LOCAL = "machines/local"


@dataclass(frozen=True, slots=True)
class LocalProfile:
    """The machine as a job sees it now, and the readings that is made of.

    `memory_available_bytes` is what could be taken now without swapping, within the limits.
    """

    machine: Machine
    gpus: tuple[Gpu, ...]
    no_gpu_reason: str
    driver_version: str
    memory_total_bytes: int
    memory_available_bytes: int
    limits: Limits
    disks: tuple[Disk, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where readings come from; what is not given is read from this machine."""

    nvml: Any | None = None
    system: Any | None = None
    cgroup_root: Path = ROOT
    cgroup_membership: Path = MEMBERSHIP
    sysctl: Callable[[str], str] | None = None


def profile(sources: Sources | None = None, *, idle: bool = False) -> LocalProfile:
    """Profiles this machine. With `idle`, as if no other process used any of it."""
    given = sources or Sources()
    system = given.system or _psutil()
    memory = system.virtual_memory()
    limits = read_limits(given.cgroup_root, given.cgroup_membership)
    reading = read_gpus(given.nvml)
    host = _host(int(memory.total), int(memory.available), limits.memory, idle=idle)
    disks = read_disks(system)
    host = replace(host, local_disk_bytes=_free_disk_bytes(disks))
    machine = _with_gpus(host, reading.gpus, given.sysctl, idle=idle)
    return LocalProfile(
        machine=replace(machine, vcpus=_processors(limits)),
        gpus=reading.gpus,
        no_gpu_reason="" if machine.device else reading.reason,
        driver_version=reading.driver_version,
        memory_total_bytes=int(memory.total),
        memory_available_bytes=_available(int(memory.available), limits.memory),
        limits=limits,
        disks=disks,
    )


def _psutil() -> Any:
    import psutil

    return psutil


def _available(available: int, limit: MemoryLimit | None) -> int:
    if limit is None:
        return available
    return min(available, max(0, limit.limit_bytes - limit.used_bytes))


def _host(total: int, available: int, limit: MemoryLimit | None, *, idle: bool) -> Machine:
    """Host memory with what takes from it: the limit, then the system or what is in use now."""
    overheads = []
    allowed = total
    if limit is not None and limit.limit_bytes < total:
        allowed = limit.limit_bytes
        overheads.append(Overhead("control-group-limit", total - allowed, f"limit of {limit.path}"))
    if not idle:
        used = allowed - min(allowed, _available(available, limit))
        words = "not available now: the system and what runs beside the job"
        overheads.append(Overhead("in-use", used, words))
    elif allowed == total:
        # Inside a container the system's own memory is outside the limit.
        system = min(operating_system_bytes(), total)
        overheads.append(Overhead("operating-system", system, "as for every node"))
    return Machine(
        name=LOCAL,
        vcpus=1,
        cpu_architecture=ARCHITECTURES.get(platform.machine().lower(), platform.machine().lower()),
        host_nominal_bytes=total,
        host_usable_bytes=total - sum(overhead.size_bytes for overhead in overheads),
        overheads=tuple(overheads),
        device=None,
        device_count=0,
        slice=1.0,
        gpu_usable_bytes=0,
    )


def _processors(limits: Limits) -> int:
    """Processors this process may use, a quota rounded down but never below one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = limits.cpu.processors if limits.cpu else float("inf")
    return max(1, int(min(allowed or 1, quota)))


def _with_gpus(
    host: Machine, gpus: tuple[Gpu, ...], sysctl: Callable[[str], str] | None, *, idle: bool
) -> Machine:
    """The machine with the GPUs that are alike: of unequal ones, those like the first."""
    if not gpus:
        return apple_gpu(host, sysctl)
    alike = [gpu for gpu in gpus if gpu.name == gpus[0].name]
    device = _device(alike[0])
    if alike[0].total_bytes is None:
        # The GPU shares the host's memory and NVML has no total of its own to tell.
        device = replace(device, driver_total_bytes=host.host_nominal_bytes)
        return replace(
            host,
            device=device,
            device_count=len(alike),
            gpu_usable_bytes=host.host_usable_bytes,
            unified_memory=True,
        )
    return replace(
        host,
        device=replace(device, driver_total_bytes=min(gpu.total_bytes or 0 for gpu in alike)),
        device_count=len(alike),
        gpu_usable_bytes=min(_gpu_usable(gpu, idle=idle) for gpu in alike),
    )


def _free_disk_bytes(disks: Sequence[Disk]) -> int | None:
    """What is free on the disk that has most room; None where no disk can be read."""
    return max((disk.free_bytes for disk in disks if disk.mount != SHARED_MEMORY), default=None)


def _gpu_usable(gpu: Gpu, *, idle: bool) -> int:
    """What CUDA can hand out: total less what driver and firmware keep, less what others use.

    A driver that does not tell what it keeps counts it as used.
    """
    total = gpu.total_bytes or 0
    kept = gpu.reserved_bytes if gpu.reserved_bytes is not None else 0
    if gpu.reserved_bytes is None and (idle or gpu.used_bytes < gpu_reserve_bytes(total)):
        kept = gpu_reserve_bytes(total)
        return total - kept
    return total - kept - (0 if idle else gpu.used_bytes)


def _device(gpu: Gpu) -> Device:
    """The table's figures for a GPU; the driver's own total and capability hold against them."""
    table = find_by_driver_name(gpu.name, gpu.total_bytes)
    return Device(
        name=table.name if table else gpu.name,
        vendor="nvidia",
        architecture=table.architecture if table else "",
        nominal_bytes=table.nominal_bytes if table else gpu.total_bytes or 0,
        driver_total_bytes=gpu.total_bytes,
        compute_capability=gpu.compute_capability,
        link_gb_per_second=table.link_gb_per_second if table else 0.0,
        evidence="NVML",
    )


__all__ = ["GpuReading", "LocalProfile", "Sources", "profile"]
