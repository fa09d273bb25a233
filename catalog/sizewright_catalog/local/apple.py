"""The GPU of an Apple computer: it has a share of the memory it has in common with the host."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from dataclasses import replace

from sizewright_catalog.capacity import apple_working_set_bytes
from sizewright_catalog.values import MIB, Device, Machine


def apple_gpu(host: Machine, sysctl: Callable[[str], str] | None = None) -> Machine:
    """The machine with its Apple GPU where it has one; unchanged elsewhere.

    `sysctl` answers the value of a name, or an empty string; the system's own by default.
    """
    if sysctl is None:
        if platform.system() != "Darwin":
            return host
        sysctl = _sysctl
    chip = sysctl("machdep.cpu.brand_string")
    if not chip.startswith("Apple"):
        return host
    # An administrator may raise the share by iogpu.wired_limit_mb; 0 means the system's rule.
    wired = sysctl("iogpu.wired_limit_mb")
    limit = int(wired) * MIB if wired.isdigit() else 0
    usable = limit or apple_working_set_bytes(host.host_nominal_bytes)
    return replace(
        host,
        device=Device(
            name=chip.replace(" ", "-"),
            vendor="apple",
            architecture="",
            nominal_bytes=host.host_nominal_bytes,
            driver_total_bytes=usable,
            compute_capability="",
            link_gb_per_second=0.0,
            evidence="sysctl",
        ),
        device_count=1,
        gpu_usable_bytes=min(usable, host.host_usable_bytes),
        unified_memory=True,
    )


def _sysctl(name: str) -> str:
    try:
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()
