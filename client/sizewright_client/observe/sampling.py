"""Reads the memory of a tree of processes, and of their GPUs where there are any."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from sizewright_client.observe.gpus import Gpus

STATUS_UNITS_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the tree. `gpu_bytes` is None where no GPU can be asked."""

    seconds: float
    memory_bytes: int
    process_count: int
    gpu_bytes: int | None


class ProcessTree:
    """A process and all that it started.

    Memory is the proportional set size where the kernel tells it (Linux), so that pages shared by
    several processes count once; else the resident set, whose sum counts them again.
    """

    def __init__(self, pid: int, gpus: Gpus) -> None:
        self._root = psutil.Process(pid)
        self._gpus = gpus
        self.reading = "pss" if psutil.LINUX else "rss"

    def sample(self, seconds: float) -> Sample | None:
        """The tree now; None when it is gone."""
        members = self._members()
        sizes = [size for size in map(self._memory_bytes, members) if size is not None]
        if not sizes:
            return None
        pids = {member.pid for member in members}
        return Sample(seconds, sum(sizes), len(sizes), self._gpus.bytes_of(pids))

    def _members(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _memory_bytes(self, process: psutil.Process) -> int | None:
        """None for a process that ended, or that only its parent still remembers."""
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            if self.reading == "pss":
                return int(process.memory_full_info().pss)
            return int(process.memory_info().rss)
        except psutil.AccessDenied:
            return self._resident_bytes(process)
        except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
            return None

    def _resident_bytes(self, process: psutil.Process) -> int | None:
        """The resident set of a process whose page map is not ours to read."""
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return None


def largest_child_bytes() -> int:
    """The largest resident set any ended child ever had, by the kernel's own high-water mark."""
    import resource
    import sys

    size = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return int(size) * (1 if sys.platform == "darwin" else STATUS_UNITS_BYTES)
