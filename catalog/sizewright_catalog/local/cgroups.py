"""What control groups allow this process: memory and processors, versions 1 and 2 of the interface.

A limit of a parent binds its children, so the whole path up to the root is read. Inside a container
the path in /proc/self/cgroup may lie outside what is mounted; then the mounted root is the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
#: Version 1 writes "no limit" as a number near 2**63.
NO_LIMIT = 2**60
#: Bandwidth period when only the quota is stated, in microseconds (kernel documentation).
DEFAULT_PERIOD = 100_000


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The tightest memory limit, what its group uses of it beyond reclaimable files, and where."""

    limit_bytes: int
    used_bytes: int
    path: str


@dataclass(frozen=True, slots=True)
class CpuLimit:
    """The tightest processor quota, in whole-processor units, and where."""

    processors: float
    path: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What binds this process; None for what is not limited."""

    memory: MemoryLimit | None = None
    cpu: CpuLimit | None = None


def read_limits(root: Path = ROOT, membership: Path = MEMBERSHIP) -> Limits:
    """The limits of the groups this process is in; none at all where there are no such groups."""
    groups = _memberships(membership)
    memory = min(_memory_limits(root, groups), key=lambda m: m.limit_bytes, default=None)
    cpu = min(_cpu_limits(root, groups), key=lambda c: c.processors, default=None)
    return Limits(memory, cpu)


def _memberships(file: Path) -> dict[str, str]:
    """Path of this process's group by controller; the unified hierarchy is ''."""
    found = {}
    for line in (_text(file) or "").splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            for controller in fields[1].split(","):
                found[controller] = fields[2]
    return found


def _upward(mount: Path, group: str) -> Iterator[Path]:
    """The folders from a group up to its mount; the mount alone where the group is not in it."""
    folder = mount / group.lstrip("/")
    if ".." in folder.parts or not folder.is_dir():
        folder = mount
    while True:
        yield folder
        if folder == mount:
            return
        folder = folder.parent


def _memory_limits(root: Path, groups: dict[str, str]) -> Iterator[MemoryLimit]:
    for mount in (root, root / "unified"):
        for folder in _upward(mount, groups.get("", "/")):
            limit = _number(folder / "memory.max")
            if limit is not None:
                yield MemoryLimit(limit, _used(folder, "memory.current"), str(folder))
    for folder in _upward(root / "memory", groups.get("memory", "/")):
        limit = _number(folder / "memory.limit_in_bytes")
        if limit is not None and limit < NO_LIMIT:
            yield MemoryLimit(limit, _used(folder, "memory.usage_in_bytes"), str(folder))


def _cpu_limits(root: Path, groups: dict[str, str]) -> Iterator[CpuLimit]:
    for mount in (root, root / "unified"):
        for folder in _upward(mount, groups.get("", "/")):
            quota, _, period = (_text(folder / "cpu.max") or "").partition(" ")
            if quota.isdigit():
                yield CpuLimit(int(quota) / int(period or DEFAULT_PERIOD), str(folder))
    for name in ("cpu", "cpu,cpuacct"):
        for folder in _upward(root / name, groups.get("cpu", "/")):
            allowed = _number(folder / "cpu.cfs_quota_us")
            if allowed is not None:
                every = _number(folder / "cpu.cfs_period_us") or DEFAULT_PERIOD
                yield CpuLimit(allowed / every, str(folder))


def _used(folder: Path, usage: str) -> int:
    """What a group holds that is not reclaimed first: usage less inactive files, like kubelet."""
    lines = (_text(folder / "memory.stat") or "").splitlines()
    stat = {name: value for name, _, value in (line.partition(" ") for line in lines)}
    # Version 1 counts a group with its children under total_..., version 2 always.
    inactive = stat.get("total_inactive_file") or stat.get("inactive_file") or "0"
    used = _number(folder / usage) or 0
    return max(0, used - int(inactive)) if inactive.isdigit() else used


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text and text.isdigit() else None


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
