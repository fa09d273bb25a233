"""From an item of DescribeInstanceTypes to a type row."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from sizewright_catalog.devices import find_device
from sizewright_catalog.providers.aws.network import SOURCE, network_of
from sizewright_catalog.rows import TypeRow, gpu_capacity, host_bytes
from sizewright_catalog.values import MIB, Availability

PROVIDER = "aws"
GB = 10**9
#: Most capable first. Macs run no Linux.
ARCHITECTURES = ("x86_64", "arm64")


@cache
def _guest_memory_mib() -> dict[str, str]:
    """MiB that a guest's system sees, by type, where someone measured it.

    Source: vantage-sh/ec2instances.info, manually fetched data of 2026-07 (MIT).
    """
    file = resources.files("sizewright_catalog.providers.aws").joinpath("guest_memory.csv")
    rows = csv.DictReader(file.read_text(encoding="ascii").splitlines())
    return {row["instance_type"]: row["os_visible_memory_mib"] for row in rows}


def type_row(item: Mapping[str, Any]) -> TypeRow | None:
    """The row of an item; None for a machine that runs no Linux. Raises KeyError for garbage."""
    offered = item["ProcessorInfo"]["SupportedArchitectures"]
    architecture = next((name for name in ARCHITECTURES if name in offered), None)
    if architecture is None:
        return None
    name = item["InstanceType"]
    nominal = int(item["MemoryInfo"]["SizeInMiB"]) * MIB
    visible, measured = host_bytes(nominal, _guest_memory_mib().get(name, ""))
    device, count, share, stated = _accelerator(item)
    known = find_device(device, PROVIDER, str(stated // MIB)) if device else None
    usable, reason = gpu_capacity(known, device, share) if device else (0, _other(item))
    return TypeRow(
        provider=PROVIDER,
        type=name,
        vcpus=int(item["VCpuInfo"]["DefaultVCpus"]),
        cpu_architecture=architecture,
        host_nominal_bytes=nominal,
        host_visible_bytes=visible,
        host_measured=measured,
        device=known.name if known else device,
        device_count=count,
        slice=share,
        gpu_usable_bytes=usable,
        unsizable_reason=reason,
        availability=availability(item),
        # What the API says of Neuron devices is not held against the table: it calls a
        # Trainium2 of 96 GiB one of 512.
        stated_device_bytes=stated if "GpuInfo" in item else 0,
        local_disk_bytes=local_disk_bytes(item),
        local_disk_source=SOURCE,
        network=network_of(item),
    )


def local_disk_bytes(item: Mapping[str, Any]) -> int | None:
    """What comes with a type as instance store, in decimal gigabytes; None where it is not said."""
    supported = item.get("InstanceStorageSupported")
    if supported is False:
        return 0
    size = item.get("InstanceStorageInfo", {}).get("TotalSizeInGB")
    return None if size is None else int(size) * GB


def availability(item: Mapping[str, Any]) -> Availability:
    """Whether a type can be bought by the hour: some are sold in blocks reserved ahead alone."""
    classes = item["SupportedUsageClasses"]
    if "on-demand" in classes or "spot" in classes:
        return "available"
    return "capacity-block-only" if "capacity-block" in classes else "reservation-only"


def _accelerator(item: Mapping[str, Any]) -> tuple[str, int, float, int]:
    """Name, count, slice and stated bytes of the accelerators; an empty name without any.

    A fraction of a GPU has Count 0 and LogicalGpuCount 1; items recorded before there were
    fractions have neither a logical count nor a partition size.
    """
    gpus = item.get("GpuInfo", {}).get("Gpus", ())
    if gpus:
        gpu = gpus[0]
        count = int(gpu.get("LogicalGpuCount") or gpu["Count"])
        share = float(gpu.get("GpuPartitionSize") or 1)
        stated = int(gpu["MemoryInfo"]["SizeInMiB"]) * MIB
        return f"{gpu['Manufacturer']} {gpu['Name']}", count, share, stated
    chips = item.get("NeuronInfo", {}).get("NeuronDevices", ())
    if chips:
        stated = int(chips[0]["MemoryInfo"]["SizeInMiB"]) * MIB
        return str(chips[0]["Name"]), int(chips[0]["Count"]), 1.0, stated
    return "", 0, 1.0, 0


def _other(item: Mapping[str, Any]) -> str:
    """Why a machine with another kind of accelerator cannot be sized; empty without one."""
    for section, entries in (
        ("FpgaInfo", "Fpgas"),
        ("MediaAcceleratorInfo", "Accelerators"),
        ("InferenceAcceleratorInfo", "Accelerators"),
    ):
        for entry in item.get(section, {}).get(entries, ()):
            return f"accelerator {entry['Name']} runs no framework known here"
    return ""
