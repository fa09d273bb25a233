"""Owned machines as they arrive: described in full, or by model with what differs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import Message
from pydantic import ValidationError

from sizewright.v1 import catalog_pb2 as pb
from sizewright_catalog.capacity import (
    apple_working_set_bytes,
    bare_metal_visible_bytes,
    gpu_reserve_bytes,
    operating_system_bytes,
)
from sizewright_catalog.devices import find_device
from sizewright_catalog.owned.library import MachineModel, find_model
from sizewright_catalog.owned.ownership import cost_per_hour_nanos_usd
from sizewright_catalog.values import MBPS_OF_GBPS, Device, Machine, Network, Overhead
from sizewright_server.estimation.problems import Violation
from sizewright_server.wire import models
from sizewright_server.wire.described_devices import described_device
from sizewright_server.wire.ownership import NO_LIFETIME, read_ownership
from sizewright_server.wire.violations import from_pydantic


def read_machine(message: pb.Machine, path: str, problems: list[Violation]) -> Machine | None:
    """A machine; None when something is wrong, which is then in `problems`.

    What its model says and its owner does not is taken from the library.
    """
    found: list[Violation] = []
    model = _model(message, path, found)
    section = _section(message, model, path, found)
    devices = None
    if section is None:
        _also(message, path, found)
    elif section.accelerators is not None:
        devices = _devices(message, section, section.accelerators, model, path, found)
    owned = read_ownership(message, section, model, path, found)
    problems += _told(message, found, path) if message.model and model is None else found
    if section is None or found:
        return None
    usable, overheads = _host(message, section, model)
    return Machine(
        name=section.name,
        vcpus=section.vcpus,
        cpu_architecture=section.cpu_architecture,
        host_nominal_bytes=section.host_memory.nominal_bytes,
        host_usable_bytes=usable,
        overheads=overheads,
        device=devices.device if devices else None,
        device_count=section.accelerators.count if section.accelerators else 0,
        slice=section.accelerators.slice if section.accelerators else 1.0,
        gpu_usable_bytes=devices.usable_bytes if devices else 0,
        cost_per_hour_nanos_usd=(
            cost_per_hour_nanos_usd(owned) if owned else section.cost_per_hour_nanos_usd
        ),
        count=section.count,
        unified_memory=message.unified_memory or bool(model and model.machine.unified_memory),
        model=message.model,
        ownership=owned,
        local_disk_bytes=section.local_disk_bytes,
        network=_network(section.network),
    )


def _network(section: models.NetworkSection | None) -> Network | None:
    if section is None:
        return None
    gbps = section.bandwidth_gbps
    mbps = None if gbps is None else round(gbps * MBPS_OF_GBPS)
    return Network(mbps, section.fabric, "stated by its owner")


def _also(message: pb.Machine, path: str, found: list[Violation]) -> None:
    """What is wrong beside wrong numbers, so that everything is named at once."""
    given = message.accelerators
    if given.device and find_device(given.device) is None:
        described_device(given, f"{path}.accelerators", found)
    owned = message.ownership
    if owned.purchase_price_nanos_usd > 0 and not owned.lifetime_years:
        found.append(Violation(f"{path}.ownership.lifetime_years", NO_LIFETIME))


def _told(message: pb.Machine, found: list[Violation], path: str) -> list[Violation]:
    """What is wrong beside a model that is not known: not what it would have said."""
    silent = set()
    if not message.cpu_architecture:
        silent.add(f"{path}.cpu_architecture")
    if not message.host_memory.nominal_bytes:
        silent.add(f"{path}.host_memory.nominal_bytes")
    return [violation for violation in found if violation.field not in silent]


def _model(message: pb.Machine, path: str, found: list[Violation]) -> MachineModel | None:
    if not message.model:
        return None
    try:
        return find_model(message.model)
    except KeyError as missing:
        found.append(Violation(f"{path}.model", str(missing.args[0])))
        return None


def _section(
    message: pb.Machine, model: MachineModel | None, path: str, found: list[Violation]
) -> models.MachineSection | None:
    """The numbers of a machine, the model's where the owner gives none."""
    base = model.machine if model else None
    given, host, owned = message.accelerators, message.host_memory, message.ownership
    devices = None
    if given.ByteSize() or (base and base.device_count):
        devices = {
            "count": given.count or (base.device_count if base else 0),
            "slice": given.slice or 1.0,
            "driver_total_bytes": given.driver_total_bytes,
            "usable_bytes": given.usable_bytes,
        }
    ownership = None
    if message.HasField("ownership"):
        ownership = {
            "purchase_price_nanos_usd": owned.purchase_price_nanos_usd,
            "lifetime_years": owned.lifetime_years,
            "power_watts": owned.power_watts or _usual_power(message, model),
            "electricity_per_kwh_nanos_usd": owned.electricity_per_kwh_nanos_usd,
            "power_usage_effectiveness": owned.power_usage_effectiveness or 1.0,
            "utilization": owned.utilization or 1.0,
            "hosting_per_month_nanos_usd": owned.hosting_per_month_nanos_usd,
        }
    try:
        return models.MachineSection.model_validate(
            {
                "name": message.name,
                "vcpus": message.vcpus or (base.vcpus if base else 0),
                "cpu_architecture": message.cpu_architecture
                or (base.cpu_architecture if base else ""),
                "host_memory": {
                    "nominal_bytes": host.nominal_bytes or (base.host_nominal_bytes if base else 0),
                    "usable_bytes": host.usable_bytes,
                },
                "accelerators": devices,
                "ownership": ownership,
                "cost_per_hour_nanos_usd": message.cost_per_hour_nanos_usd,
                "count": message.count or 1,
                "local_disk_bytes": _stated(message, "local_disk_bytes"),
                "network": {
                    "bandwidth_gbps": _stated(message.network, "bandwidth_gbps"),
                    "fabric": message.network.fabric,
                }
                if message.HasField("network")
                else None,
            }
        )
    except ValidationError as error:
        found += from_pydantic(error, path)
        return None


def _stated(message: Message, field: str) -> Any:
    """The value of a field; None where it is not set."""
    return getattr(message, field) if message.HasField(field) else None


def _usual_power(message: pb.Machine, model: MachineModel | None) -> float:
    """The model's power, where a price of electricity asks for one."""
    asked = message.ownership.electricity_per_kwh_nanos_usd
    return model.power_watts if model and asked else 0.0


def _host(
    message: pb.Machine, section: models.MachineSection, model: MachineModel | None
) -> tuple[int, tuple[Overhead, ...]]:
    """Usable host memory and what is taken off it: the owner's, else the model's, else usual."""
    host = message.host_memory
    if host.usable_bytes:
        stated = tuple(Overhead(o.name, o.size_bytes, o.source) for o in host.overheads)
        return section.host_memory.usable_bytes, stated
    if model and not host.nominal_bytes:
        return model.machine.host_usable_bytes, model.machine.overheads
    nominal = section.host_memory.nominal_bytes
    visible = bare_metal_visible_bytes(nominal)
    system = min(operating_system_bytes(), visible)
    words = "low share of bare-metal machines measured"
    return visible - system, (
        Overhead("firmware-and-kernel", nominal - visible, words),
        Overhead("operating-system", system, "as for every node"),
    )


@dataclass(frozen=True, slots=True)
class _Devices:
    """The device of a machine and what a job can have of each."""

    device: Device
    usable_bytes: int


def _devices(
    message: pb.Machine,
    machine: models.MachineSection,
    section: models.MachineDevicesSection,
    model: MachineModel | None,
    path: str,
    found: list[Violation],
) -> _Devices | None:
    """The device by the table or its owner's words; its memory by what is stated of it."""
    given = message.accelerators
    where = f"{path}.accelerators"
    if not given.device and model and model.machine.device:
        device: Device | None = model.machine.device
    else:
        device = find_device(given.device) or described_device(given, where, found)
    if device is None:
        return None
    unified = message.unified_memory or bool(model and model.machine.unified_memory)
    total = section.driver_total_bytes or int((device.driver_total_bytes or 0) * section.slice)
    if not total and not section.usable_bytes and not unified:
        words = f"is required: no reading is known for {device.name}"
        found.append(Violation(f"{where}.driver_total_bytes", words))
        return None
    if total and section.usable_bytes > total:
        words = f"{section.usable_bytes} is more than the driver's total, {total}"
        found.append(Violation(f"{where}.usable_bytes", words))
        return None
    if section.usable_bytes:
        usable = section.usable_bytes
    elif unified and not section.driver_total_bytes:
        usable = _shared(message, machine, model, device)
    else:
        usable = _left(device, section, total)
    if section.driver_total_bytes:
        device = replace(device, driver_total_bytes=int(total / section.slice))
    return _Devices(device, usable)


def _shared(
    message: pb.Machine,
    machine: models.MachineSection,
    model: MachineModel | None,
    device: Device,
) -> int:
    """What a GPU can have of the memory it has in common with the host."""
    usable, _ = _host(message, machine, model)
    if device.vendor != "apple":
        return usable
    return min(usable, apple_working_set_bytes(machine.host_memory.nominal_bytes))


def _left(device: Device, section: models.MachineDevicesSection, total: int) -> int:
    """What is left of the driver's total: the device's own figure where the total is its own."""
    known = device.usable_bytes
    if known is not None and not section.driver_total_bytes:
        return int(known * section.slice)
    if known is not None and device.driver_total_bytes is not None:
        kept = device.driver_total_bytes - known
        return max(0, total - int(kept * section.slice))
    return total - gpu_reserve_bytes(total) if device.vendor == "nvidia" else total
