"""GPU memory of a set of processes, through NVML."""

from __future__ import annotations

import os
from typing import Any

DRIVER = "/proc/driver/nvidia/version"


def load_nvml() -> Any | None:
    """The NVML bindings where there is a driver; None else."""
    if not os.path.exists(DRIVER) and os.name != "nt":
        return None
    import pynvml

    return pynvml


class Gpus:
    """The GPUs of this machine, and how full each was before the command ran.

    NVML names processes by the host's numbers. Inside a container these are not ours, and some
    drivers keep a process's bytes to themselves: then what a GPU filled up since the start counts.
    """

    def __init__(self, nvml: Any | None) -> None:
        self._nvml: Any = nvml
        self._handles: list[Any] = []
        self._before: list[int] = []
        if nvml is None:
            return
        try:
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
            self._handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
            self._before = [self._used_bytes(handle) for handle in self._handles]
        except nvml.NVMLError:
            self._handles = []

    def bytes_of(self, pids: set[int]) -> int | None:
        """Bytes of the fullest GPU that the processes hold; None where no GPU can be asked."""
        if self._nvml is None or not self._handles:
            return None
        try:
            return max(
                self._held_bytes(handle, before, pids)
                for handle, before in zip(self._handles, self._before, strict=True)
            )
        except self._nvml.NVMLError:
            return None

    def _held_bytes(self, handle: Any, before: int, pids: set[int]) -> int:
        running = self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        ours = [process for process in running if process.pid in pids]
        if ours and all(process.usedGpuMemory is not None for process in ours):
            return sum(process.usedGpuMemory for process in ours)
        return max(0, self._used_bytes(handle) - before)

    def _used_bytes(self, handle: Any) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used)
