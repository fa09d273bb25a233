"""The profile of a machine from recorded replies: NVML, psutil, control groups, sysctl."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from sizewright_catalog.local import LocalProfile, profile, read_limits
from sizewright_catalog.local.disks import read_disks
from sizewright_catalog.local.profile import Sources
from sizewright_catalog.values import GIB, MIB

REPLIES = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "local" / "nvml_replies.json").read_text()
)


class Nvml:
    """pynvml with recorded replies; its errors and constants are the real ones."""

    nvmlMemory_v2 = pynvml.nvmlMemory_v2  # noqa: N815
    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound
    NVMLError_NotFound = pynvml.NVMLError_NotFound
    NVMLError_ArgumentVersionMismatch = pynvml.NVMLError_ArgumentVersionMismatch

    def __init__(self, machine: str) -> None:
        self.replies = REPLIES[machine]
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return str(self.replies["driver"])

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.replies["gpus"])

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return self.replies["gpus"][index]

    def nvmlDeviceGetName(self, gpu: Any) -> bytes:  # noqa: N802
        return str(gpu["name"]).encode()

    def nvmlDeviceGetMemoryInfo(self, gpu: Any, version: int | None = None) -> Any:  # noqa: N802
        if gpu.get("unsupported"):
            raise self.NVMLError_NotSupported
        if version is not None and not self.replies.get("v2", True):
            raise self.NVMLError_FunctionNotFound
        return SimpleNamespace(**{k: gpu.get(k, 0) for k in ("total", "used", "reserved")})

    def nvmlDeviceGetCudaComputeCapability(self, gpu: Any) -> list[int]:  # noqa: N802
        return list(gpu["capability"])

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: Any) -> list[int]:  # noqa: N802
        return list(range(gpu.get("processes", 0)))

    def nvmlDeviceGetMigMode(self, gpu: Any) -> list[int]:  # noqa: N802
        if "A100" not in gpu["name"]:
            raise self.NVMLError_NotSupported
        return [int("mig" in gpu), int("mig" in gpu)]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: Any) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: Any, slot: int) -> Any:  # noqa: N802
        if slot >= len(gpu["mig"]):
            raise self.NVMLError_NotFound
        return gpu["mig"][slot]


class System:
    """psutil with a host of 64 GiB, 40 of them available, and two disks."""

    total, available = 64 * GIB, 40 * GIB

    def virtual_memory(self) -> Any:
        return SimpleNamespace(total=self.total, available=self.available)

    def disk_partitions(self, *, all: bool) -> list[Any]:
        assert not all
        return [
            SimpleNamespace(mountpoint="/", device="/dev/nvme0n1p2", fstype="ext4"),
            SimpleNamespace(mountpoint="/data", device="/dev/sda1", fstype="xfs"),
            SimpleNamespace(mountpoint="/snap", device="/dev/nvme0n1p2", fstype="ext4"),
            SimpleNamespace(mountpoint="/gone", device="/dev/sdb1", fstype="xfs"),
        ]

    def disk_usage(self, mount: str) -> Any:
        if mount == "/gone":
            raise PermissionError(mount)
        return SimpleNamespace(total=1000 * GIB, free=300 * GIB)


def profiled(
    machine: str = "no-device",
    *,
    idle: bool = False,
    root: Path = Path("/nonexistent"),
    membership: Path = Path("/nonexistent"),
    sysctl: Any = None,
) -> LocalProfile:
    sources = Sources(Nvml(machine), System(), root, membership, sysctl or (lambda _: ""))
    return profile(sources, idle=idle)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_memory_is_what_is_available_now() -> None:
    found = profiled()
    assert found.machine.host_nominal_bytes == 64 * GIB
    assert found.machine.host_usable_bytes == 40 * GIB
    assert [o.name for o in found.machine.overheads] == ["in-use"]


def test_an_idle_machine_has_all_but_its_system() -> None:
    found = profiled(idle=True)
    assert found.machine.host_usable_bytes == 64 * GIB - 512 * MIB


def test_gpus_leave_total_less_reserve_less_what_others_use() -> None:
    found = profiled("a100-sxm4-80gb-535")
    machine = found.machine
    assert machine.device is not None
    assert (machine.device.name, machine.device_count) == ("A100-80GB-SXM", 2)
    assert machine.device.driver_total_bytes == 81_920 * MIB
    # The second GPU is in use: what all of them have is what it has left.
    assert machine.gpu_usable_bytes == 85_899_345_920 - 668_467_200 - 20 * GIB
    assert [gpu.processes for gpu in found.gpus] == [0, 1]


def test_an_idle_gpu_leaves_what_cuda_can_hand_out() -> None:
    machine = profiled("a100-sxm4-80gb-535", idle=True).machine
    assert machine.gpu_usable_bytes / GIB == pytest.approx(79.4, abs=0.05)


def test_a_driver_that_does_not_tell_its_reserve_has_one_all_the_same() -> None:
    machine = profiled("t4-470").machine
    assert machine.device is not None
    assert machine.device.name == "T4"
    # CUDA on a T4 says 14.56 to 14.76 GiB of the driver's 15.
    assert 14.4 * GIB <= machine.gpu_usable_bytes <= 14.76 * GIB


def test_of_unequal_gpus_those_like_the_first_count() -> None:
    found = profiled("mixed")
    assert found.machine.device is not None
    assert (found.machine.device.name, found.machine.device_count) == ("RTX-A6000", 1)
    assert [gpu.name for gpu in found.gpus][1] == "NVIDIA GeForce RTX 3060"


def test_with_mig_a_job_has_instances_and_not_the_gpu() -> None:
    found = profiled("a100-mig")
    assert [gpu.mig_instance for gpu in found.gpus] == [True, True]
    assert found.machine.device_count == 2
    assert found.machine.gpu_usable_bytes == 21_074_280_448 - GIB


def test_a_gpu_without_memory_of_its_own_shares_the_hosts() -> None:
    machine = profiled("dgx-spark").machine
    assert machine.unified_memory
    assert machine.device is not None
    assert (machine.device.name, machine.device.compute_capability) == ("GB10", "12.1")
    assert machine.gpu_usable_bytes == machine.host_usable_bytes == 40 * GIB


def test_an_apple_gpu_has_its_share_of_the_memory() -> None:
    answers = {"machdep.cpu.brand_string": "Apple M4 Max", "iogpu.wired_limit_mb": "0"}
    machine = profiled(idle=True, sysctl=lambda name: answers.get(name, "")).machine
    assert machine.device is not None
    assert (machine.device.name, machine.device.vendor) == ("Apple-M4-Max", "apple")
    assert machine.gpu_usable_bytes == 48 * GIB
    raised = {**answers, "iogpu.wired_limit_mb": "57344"}
    machine = profiled(idle=True, sysctl=lambda name: raised.get(name, "")).machine
    assert machine.gpu_usable_bytes == 56 * GIB


def test_without_a_gpu_the_reason_is_said() -> None:
    assert profiled().no_gpu_reason == "NVML reports no device"


def test_nvml_is_let_go_of() -> None:
    nvml = Nvml("mixed")
    profile(Sources(nvml, System(), Path("/nonexistent"), Path("/nonexistent")))
    assert nvml.open == 0


def test_a_limit_of_version_2_binds_and_names_its_group(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "cgroup": "0::/kubepods/pod1/job\n",
            "fs/memory.max": "max",
            "fs/kubepods/pod1/memory.max": str(16 * GIB),
            "fs/kubepods/pod1/memory.current": str(6 * GIB),
            "fs/kubepods/pod1/memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
            "fs/kubepods/pod1/job/memory.max": "max",
            "fs/kubepods/pod1/job/cpu.max": "150000 100000",
            "fs/kubepods/cpu.max": "max 100000",
        },
    )
    found = profiled(root=tmp_path / "fs", membership=tmp_path / "cgroup")
    limit = found.limits.memory
    assert limit is not None
    assert (limit.limit_bytes, limit.used_bytes) == (16 * GIB, 4 * GIB)
    assert limit.path.endswith("kubepods/pod1")
    assert found.machine.host_usable_bytes == 12 * GIB
    assert [o.name for o in found.machine.overheads] == ["control-group-limit", "in-use"]
    assert sum(o.size_bytes for o in found.machine.overheads) == 52 * GIB
    assert found.machine.vcpus == 1


def test_a_limit_of_version_1_binds(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n",
            "fs/memory/memory.limit_in_bytes": str(2**63 - 4096),
            "fs/memory/docker/abc/memory.limit_in_bytes": str(8 * GIB),
            "fs/memory/docker/abc/memory.usage_in_bytes": str(3 * GIB),
            "fs/memory/docker/abc/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB}\n",
            "fs/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "400000",
            "fs/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
        },
    )
    limits = read_limits(tmp_path / "fs", tmp_path / "cgroup")
    assert limits.memory is not None
    assert (limits.memory.limit_bytes, limits.memory.used_bytes) == (8 * GIB, 2 * GIB)
    assert limits.cpu is not None
    assert limits.cpu.processors == 4.0


def test_in_a_container_the_mounted_root_is_the_group(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "cgroup": "5:memory:/system.slice/docker-abc.scope\n0::/../../elsewhere\n",
            "fs/memory/memory.limit_in_bytes": str(4 * GIB),
            "fs/memory.max": str(5 * GIB),
        },
    )
    limits = read_limits(tmp_path / "fs", tmp_path / "cgroup")
    assert limits.memory is not None
    assert limits.memory.limit_bytes == 4 * GIB


@pytest.mark.parametrize("text", ["max", "", "9223372036854771712", "a lot"])
def test_what_is_no_limit_does_not_bind(tmp_path: Path, text: str) -> None:
    tree(tmp_path, {"memory/memory.limit_in_bytes": text})
    assert read_limits(tmp_path, tmp_path / "none").memory is None


def test_disks_are_told_apart_by_whether_they_turn(tmp_path: Path) -> None:
    tree(tmp_path, {"nvme0n1/queue/rotational": "0\n", "sda/queue/rotational": "1\n"})
    disks = {disk.mount: disk.kind for disk in read_disks(System(), tmp_path)}
    assert {mount: disks[mount] for mount in ("/", "/data")} == {"/": "ssd", "/data": "hdd"}
    assert "/gone" not in disks
    assert "/snap" not in disks


def test_this_very_machine_is_profiled() -> None:
    found = profile()
    assert 0 < found.memory_available_bytes <= found.memory_total_bytes
    assert found.machine.host_usable_bytes <= found.machine.host_nominal_bytes
    assert found.machine.vcpus >= 1
    assert found.disks
