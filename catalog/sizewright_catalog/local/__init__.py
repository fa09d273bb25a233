"""Profiles the machine this runs on: what its memory, limits, disks and GPUs leave for a job."""

from sizewright_catalog.local.cgroups import CpuLimit, Limits, MemoryLimit, read_limits
from sizewright_catalog.local.disks import Disk
from sizewright_catalog.local.gpus import Gpu, GpuReading
from sizewright_catalog.local.profile import LocalProfile, profile

__all__ = [
    "CpuLimit",
    "Disk",
    "Gpu",
    "GpuReading",
    "Limits",
    "LocalProfile",
    "MemoryLimit",
    "profile",
    "read_limits",
]
