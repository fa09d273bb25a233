"""GPU memory of a command, with NVML's replies as they were recorded."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from sizewright_client.observe.gpus import Gpus
from sizewright_client.observe.run import observe

GIB = 2**30


class NvmlError(Exception):
    """Stands in for NVMLError."""


@dataclass
class Memory:
    used: int


@dataclass
class Process:
    pid: int
    usedGpuMemory: int | None  # noqa: N815  NVML's own name


@dataclass
class Recorded:
    """Replies of a machine with two GPUs: used bytes of each at each look, and its processes."""

    used: list[list[int]]
    processes: list[list[Process]] = field(default_factory=lambda: [[], []])
    fails: bool = False
    NVMLError = NvmlError
    looks: int = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.fails:
            raise NvmlError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Memory:  # noqa: N802
        replies = self.used[handle]
        reply = replies[min(self.looks, len(replies) - 1)]
        if handle == 1:
            self.looks += 1
        return Memory(reply)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Process]:  # noqa: N802
        return self.processes[handle]


def test_the_fullest_gpu_of_our_own_processes_counts() -> None:
    nvml: Any = Recorded(
        used=[[GIB], [GIB]],
        processes=[[Process(10, 3 * GIB), Process(99, 20 * GIB)], [Process(11, 5 * GIB)]],
    )

    assert Gpus(nvml).bytes_of({10, 11}) == 5 * GIB


def test_processes_of_others_are_not_ours() -> None:
    nvml: Any = Recorded(used=[[GIB], [GIB]], processes=[[Process(99, 20 * GIB)], []])

    assert Gpus(nvml).bytes_of({10}) == 0


def test_inside_a_container_what_a_gpu_filled_up_since_the_start_counts() -> None:
    """NVML gives the host's process numbers there."""
    nvml: Any = Recorded(
        used=[[2 * GIB, 9 * GIB], [0, GIB]], processes=[[Process(77_001, 7 * GIB)], []]
    )

    assert Gpus(nvml).bytes_of({10}) == 7 * GIB


def test_a_driver_that_keeps_the_bytes_of_processes_is_asked_for_the_device() -> None:
    nvml: Any = Recorded(used=[[GIB, 4 * GIB], [0]], processes=[[Process(10, None)], []])

    assert Gpus(nvml).bytes_of({10}) == 3 * GIB


def test_without_a_driver_nothing_is_said() -> None:
    broken: Any = Recorded(used=[[0], [0]], fails=True)

    assert Gpus(broken).bytes_of({10}) is None
    assert Gpus(None).bytes_of({10}) is None


def test_a_run_reports_the_highest_of_all_looks() -> None:
    nvml: Any = Recorded(used=[[0, GIB, 6 * GIB, 2 * GIB], [0]])
    command = [sys.executable, "-c", "import time; time.sleep(1.5)"]

    seen = observe(command, interval_seconds=0.1, nvml=nvml)

    assert seen.gpu_peak_bytes == 6 * GIB
