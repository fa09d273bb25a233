"""Owned machines, their models and profiles as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizewright.v1 import catalog_pb2 as pb
from sizewright.v1 import catalog_service_pb2 as service_pb
from sizewright_catalog.owned.ownership import Ownership
from sizewright_catalog.values import Machine
from sizewright_server.wire.machines import (
    accelerators_message,
    host_memory_message,
    network_message,
)

if TYPE_CHECKING:
    from sizewright_catalog.local import Disk, Gpu, LocalProfile
    from sizewright_catalog.owned.library import MachineModel


def machine_message(value: Machine) -> pb.Machine:
    """An owned machine."""
    return pb.Machine(
        name=value.name,
        vcpus=value.vcpus,
        cpu_architecture=value.cpu_architecture,
        host_memory=host_memory_message(value),
        accelerators=accelerators_message(value),
        cost_per_hour_nanos_usd=value.cost_per_hour_nanos_usd,
        count=value.count,
        model=value.model,
        unified_memory=value.unified_memory,
        ownership=_ownership(value.ownership),
        local_disk_bytes=value.local_disk_bytes,
        network=network_message(value.network),
    )


def model_message(value: MachineModel) -> service_pb.MachineModel:
    """A model of the machine library."""
    return service_pb.MachineModel(
        name=value.name,
        title=value.title,
        machine=machine_message(value.machine),
        power_watts=value.power_watts,
        source=value.source,
    )


def profile_message(value: LocalProfile) -> pb.Machine:
    """The machine that was profiled, with what was read on it."""
    made = machine_message(value.machine)
    memory, cpu = value.limits.memory, value.limits.cpu
    made.reading.CopyFrom(
        pb.MachineReading(
            host_total_bytes=value.memory_total_bytes,
            host_available_bytes=value.memory_available_bytes,
            memory_limit_bytes=memory.limit_bytes if memory else 0,
            cpu_limit=cpu.processors if cpu else 0.0,
            gpus=[_gpu(gpu) for gpu in value.gpus],
            no_gpu_reason=value.no_gpu_reason,
            driver_version=value.driver_version,
            disks=[_disk(disk) for disk in value.disks],
        )
    )
    return made


def _gpu(value: Gpu) -> pb.GpuReading:
    return pb.GpuReading(
        name=value.name,
        driver_total_bytes=value.total_bytes or 0,
        reserved_bytes=value.reserved_bytes or 0,
        used_bytes=value.used_bytes,
        compute_capability=value.compute_capability,
        processes=value.processes,
        mig_instance=value.mig_instance,
    )


def _disk(value: Disk) -> pb.Disk:
    return pb.Disk(
        mount=value.mount,
        kind=value.kind,
        total_bytes=value.total_bytes,
        free_bytes=value.free_bytes,
    )


def _ownership(value: Ownership | None) -> pb.Ownership | None:
    if value is None:
        return None
    return pb.Ownership(
        purchase_price_nanos_usd=value.purchase_price_nanos_usd,
        lifetime_years=value.lifetime_years,
        power_watts=value.power_watts,
        electricity_per_kwh_nanos_usd=value.electricity_per_kwh_nanos_usd,
        power_usage_effectiveness=value.power_usage_effectiveness,
        utilization=value.utilization,
        hosting_per_month_nanos_usd=value.hosting_per_month_nanos_usd,
    )
