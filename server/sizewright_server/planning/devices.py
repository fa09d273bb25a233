"""Which devices can run a workload at all, and what runs on them beside it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from sizewright_catalog.values import Device
from sizewright_server.estimation.classical.cpu_network import CpuWorkload
from sizewright_server.estimation.cuda import cuda_lacks
from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.runtime import DeviceOverhead, KernelLoading, device_overhead
from sizewright_server.estimation.serving.devices import serving_device
from sizewright_server.estimation.serving.run import ServingDevice, ServingWorkload
from sizewright_server.estimation.workload import Training, Workload


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = data_of("sizewright_server.planning", "frameworks")
    return table


@lru_cache(maxsize=1024)
def unsupported_reason(device: Device) -> str:
    """Why PyTorch cannot use a device; empty when it can."""
    rule = _table()["pytorch"]
    if device.vendor == "nvidia":
        least = rule["nvidia_compute_capability_min"]
        if float(device.compute_capability) >= least:
            return ""
        return f"{device.name} has compute capability below {least}"
    if device.vendor == "amd" and device.compute_capability in rule["amd_architectures"]:
        return ""
    backend = _table()["backends"].get(device.vendor)
    if backend is None:
        return f"PyTorch's own builds do not run on {device.name}"
    return f"PyTorch runs on {device.name} by {backend} alone, whose memory is not modelled"


def arm64_words(device: Device) -> str:
    """What to know of a device beside arm64 processors; empty where PyTorch's wheels run on it."""
    least = _table()["pytorch_arm64"]["nvidia_compute_capability_min"]
    if device.vendor != "nvidia" or float(device.compute_capability) >= least:
        return ""
    return (
        f"PyTorch's own builds for arm64 have kernels from compute capability {least:g}, and "
        f"{device.name} has {device.compute_capability}: it takes an image or a build of another's."
    )


def uses_gpu(workload: AnyWorkload) -> bool:
    """Whether a workload runs on GPUs; most fits run on the host."""
    return workload.on_gpu


def loading_of(workload: AnyWorkload) -> KernelLoading | None:
    """How CUDA loads a workload's kernels; None where no version says so."""
    return workload.kernel_loading if isinstance(workload, Workload | ServingWorkload) else None


def native_features(workload: AnyWorkload) -> tuple[str, ...]:
    """The device features a workload asks for; none where it runs on the host.

    The release of CUDA it states is one, such as "CUDA 12.4".
    """
    if isinstance(workload, CpuWorkload) or not workload.on_gpu:
        return _kernel_features(workload)
    release = (f"CUDA {workload.cuda}",) if workload.cuda else ()
    return (*_kernel_features(workload), *release)


def _kernel_features(workload: AnyWorkload) -> tuple[str, ...]:
    if isinstance(workload, ServingWorkload):
        return _serving_features(workload)
    if not isinstance(workload, Workload):
        return ("CUDA",) if workload.on_gpu else ()
    run = workload.run
    kind = run.precision if isinstance(run, Training) else run.weight_dtype
    asked = []
    if kind.startswith("bf16"):
        asked.append("bf16")
    if kind in ("tf32", "fp8", "mxfp8", "nvfp4"):
        asked.append(kind)
    if run.attention in ("flash-attention-2", "flash-attention-3"):
        asked.append(run.attention)
    if isinstance(run, Training) and run.base_weights and run.base_weights.format == "int8":
        asked.append("bitsandbytes int8")
    return tuple(asked)


def _serving_features(workload: ServingWorkload) -> tuple[str, ...]:
    run, asked = workload.run, []
    if run.compute_type == "bf16":
        asked.append("bf16")
    kernels = _table()["weight_formats"].get(run.engine, {})
    asked += [f"{run.engine} {name}" for name in ("attention", run.weight_type) if name in kernels]
    return tuple(asked)


def refuse_what_cannot_run(device: Device, workload: AnyWorkload) -> None:
    """Raises UnsupportedWorkload where a device has no hardware or kernels for a workload.

    bf16 and TF32 are done by fp32 units where there are no others.
    """
    asked = tuple(one for one in native_features(workload) if one not in ("bf16", "tf32"))
    reason = lacks(device, asked)
    if reason:
        raise UnsupportedWorkload(Violation("device", reason))


@lru_cache(maxsize=1024)
def lacks(device: Device, features: tuple[str, ...]) -> str:
    """Which asked feature a device does not have; empty when it has all.

    A feature is a number type or kernel the hardware has, "CUDA RELEASE", or "ENGINE FORMAT" for
    an engine's kernels, of attention or of a weight format.
    """
    for feature in features:
        engine, _, weights = feature.partition(" ")
        if weights and engine == "CUDA":
            if reason := _cuda_reason(device, weights):
                return reason
        elif weights:
            rule = _table()["weight_formats"][engine][weights]
            if not _allowed(device, rule):
                return f"{engine} has no kernels of {weights} for {device.name}"
        elif not _allowed(device, _table()["native_from"][feature]):
            return f"{device.name} has no native {feature}"
    return ""


def _cuda_reason(device: Device, release: str) -> str:
    if device.vendor != "nvidia":
        return f"{device.name} runs no CUDA, and the workload states CUDA {release}"
    takes = cuda_lacks(release, device.compute_capability)
    capability = device.compute_capability
    known = f"{device.name} has compute capability {capability} and takes {takes}"
    return f"CUDA {release} has no kernels for {device.name}: {known}" if takes else ""


def _allowed(device: Device, rule: dict[str, Any]) -> bool:
    if device.vendor == "nvidia":
        least: float = rule["compute_capability_min"]
        below: float = rule.get("compute_capability_below", math.inf)
        return least <= float(device.compute_capability) < below
    return device.compute_capability in rule["amd_architectures"]


@lru_cache(maxsize=1024)
def overhead_of(device: Device, loading: KernelLoading | None = None) -> DeviceOverhead:
    """The runtime overheads of a device PyTorch can use; `loading` is of CUDA's kernels."""
    capability = device.compute_capability if device.vendor == "nvidia" else None
    overhead = device_overhead(device.vendor, capability, loading)
    return replace(overhead, capacity_bytes=device.usable_bytes or device.driver_total_bytes)


@lru_cache(maxsize=1024)
def served_on(device: Device) -> ServingDevice:
    """A device as a serving engine sees it."""
    total = device.driver_total_bytes or device.usable_bytes or device.nominal_bytes
    capability = float(device.compute_capability) if device.vendor == "nvidia" else 0.0
    return serving_device(device.name, device.vendor, total, device.link_gb_per_second, capability)
