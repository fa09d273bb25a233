"""The disks a job can write to: where, how much is free, and whether they turn."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Shared memory: loader workers hand batches over through it. Docker gives a container 64 MiB.
SHARED_MEMORY = "/dev/shm"
#: virtio and Xen disks call themselves turning whatever stands behind them.
VIRTUAL = ("vd", "xvd")


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted file system. `kind` is ssd, hdd, memory or unknown; sizes in bytes."""

    mount: str
    device: str
    file_system: str
    kind: str
    total_bytes: int
    free_bytes: int


def read_disks(system: Any, block: Path = Path("/sys/block")) -> tuple[Disk, ...]:
    """Disks by mount point, each device once, and shared memory where there is any.

    `system` is the psutil module or a stand-in. Mounts that cannot be read are left out.
    """
    found: dict[str, Disk] = {}
    for part in system.disk_partitions(all=False):
        disk = _disk(system, part.mountpoint, part.device, part.fstype, _kind(part.device, block))
        if disk is not None and part.device not in found:
            found[part.device] = disk
    if not found:
        # A container often has nothing but its overlay, which is no partition.
        root = _disk(system, tempfile.gettempdir(), "", "", "unknown")
        found |= {"": root} if root is not None else {}
    if Path(SHARED_MEMORY).is_dir():
        memory = _disk(system, SHARED_MEMORY, "tmpfs", "tmpfs", "memory")
        found |= {SHARED_MEMORY: memory} if memory is not None else {}
    return tuple(sorted(found.values(), key=lambda disk: disk.mount))


def _disk(system: Any, mount: str, device: str, file_system: str, kind: str) -> Disk | None:
    try:
        usage = system.disk_usage(mount)
    except OSError:
        return None
    return Disk(mount, device, file_system, kind, int(usage.total), int(usage.free))


def _kind(device: str, block: Path) -> str:
    """ssd or hdd by what the kernel says of the device's queue; virtual disks do not say true."""
    if device.rsplit("/", 1)[-1].startswith(VIRTUAL):
        return "unknown"
    for name in _bases(device):
        try:
            turns = (block / name / "queue" / "rotational").read_text(encoding="ascii").strip()
        except OSError:
            continue
        return "hdd" if turns == "1" else "ssd"
    return "unknown"


def _bases(device: str) -> Iterator[str]:
    """Names under which a partition's disk may be listed: nvme0n1p2 is on nvme0n1, sda1 on sda."""
    name = device.rsplit("/", 1)[-1]
    yield name
    stripped = name.rstrip("0123456789")
    if stripped.endswith("p") and stripped[:-1][-1:].isdigit():
        yield stripped[:-1]
    yield stripped
