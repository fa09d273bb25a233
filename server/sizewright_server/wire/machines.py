"""Machines that arrive with a request, and the catalog's values as messages."""

from __future__ import annotations

from datetime import UTC, date, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import ValidationError

from sizewright.v1 import catalog_pb2 as pb
from sizewright_catalog.catalog import ProviderStatus
from sizewright_catalog.devices import find_device
from sizewright_catalog.values import Device, InstanceType, Machine, Offer, Overhead
from sizewright_server.estimation.problems import Violation
from sizewright_server.wire import models
from sizewright_server.wire.violations import echoed, from_pydantic

SECONDS_PER_DAY = 86_400

TERM_NUMBERS = {
    "on-demand": pb.PURCHASE_TERM_ON_DEMAND,
    "spot": pb.PURCHASE_TERM_SPOT,
    "committed": pb.PURCHASE_TERM_COMMITTED,
}
KIND_NUMBERS = {
    "list": pb.PRICE_KIND_LIST,
    "estimate": pb.PRICE_KIND_ESTIMATE,
    "composed": pb.PRICE_KIND_COMPOSED,
    "override": pb.PRICE_KIND_OVERRIDE,
}
AVAILABILITY_NUMBERS = {
    "available": pb.AVAILABILITY_AVAILABLE,
    "capacity-block-only": pb.AVAILABILITY_CAPACITY_BLOCK_ONLY,
    "reservation-only": pb.AVAILABILITY_RESERVATION_ONLY,
    "retired": pb.AVAILABILITY_RETIRED,
    "unpriced": pb.AVAILABILITY_UNPRICED,
}


def read_machine(message: pb.Machine, path: str, problems: list[Violation]) -> Machine | None:
    """A machine described in full; None when something is wrong, which is then in `problems`."""
    given = message.accelerators
    try:
        section = models.MachineSection.model_validate(
            {
                "name": message.name,
                "vcpus": message.vcpus,
                "cpu_architecture": message.cpu_architecture,
                "host_nominal_bytes": message.host_memory.nominal_bytes,
                "host_usable_bytes": message.host_memory.usable_bytes,
                "cost_per_hour_nanos_usd": message.cost_per_hour_nanos_usd,
                "count": message.count or 1,
                "device_count": given.count,
                "slice": given.slice or 1.0,
                "driver_total_bytes": given.driver_total_bytes,
            }
        )
    except ValidationError as error:
        problems += from_pydantic(error, path)
        return None
    device = None
    if section.device_count:
        device = _read_device(given, path, problems)
        if device is None:
            return None
    return Machine(
        name=section.name,
        vcpus=section.vcpus,
        cpu_architecture=section.cpu_architecture,
        host_nominal_bytes=section.host_nominal_bytes,
        host_usable_bytes=section.host_usable_bytes,
        overheads=tuple(
            Overhead(o.name, o.size_bytes, o.source) for o in message.host_memory.overheads
        ),
        device=device,
        device_count=section.device_count,
        slice=section.slice,
        gpu_usable_bytes=int(section.driver_total_bytes * section.slice),
        cost_per_hour_nanos_usd=section.cost_per_hour_nanos_usd,
        count=section.count,
    )


def _read_device(given: pb.Accelerators, path: str, problems: list[Violation]) -> Device | None:
    """The device of a machine: the table's by name, else one its owner describes."""
    if given.driver_total_bytes <= 0:
        problems.append(
            Violation(f"{path}.accelerators.driver_total_bytes", "must be above 0 with devices")
        )
        return None
    known = find_device(given.device)
    if known is not None:
        return known
    try:
        float(given.compute_capability)
    except ValueError:
        problems.append(
            Violation(
                f"{path}.accelerators.device",
                f"{echoed(given.device)} is not in the device table; "
                "give its compute_capability, such as '8.9'",
            )
        )
        return None
    return Device(
        name=given.device,
        vendor="nvidia",
        architecture="",
        nominal_bytes=given.nominal_bytes,
        driver_total_bytes=given.driver_total_bytes,
        compute_capability=given.compute_capability,
        link_gb_per_second=given.link_gb_per_second,
        evidence="stated by its owner",
    )


def instance_type_message(value: InstanceType) -> pb.InstanceType:
    """An instance type."""
    return pb.InstanceType(
        name=value.name,
        provider=value.provider,
        type=value.type,
        vcpus=value.vcpus,
        cpu_architecture=value.cpu_architecture,
        host_memory=_host_memory(value),
        accelerators=_accelerators(value),
        unsizable_reason=value.unsizable_reason,
        availability=AVAILABILITY_NUMBERS[value.availability],
    )


def machine_message(value: Machine) -> pb.Machine:
    """An owned machine."""
    return pb.Machine(
        name=value.name,
        vcpus=value.vcpus,
        cpu_architecture=value.cpu_architecture,
        host_memory=_host_memory(value),
        accelerators=_accelerators(value),
        cost_per_hour_nanos_usd=value.cost_per_hour_nanos_usd,
        count=value.count,
    )


def offer_message(value: Offer, today: date) -> pb.Offer:
    """An offer with the age its price has today, in whole days."""
    price = value.price
    return pb.Offer(
        name=value.name,
        provider=value.instance_type.provider,
        region=value.region,
        zone=value.zone,
        term=TERM_NUMBERS[value.term],
        price=pb.Price(
            per_hour_nanos_usd=price.per_hour_nanos if price.currency == "USD" else 0,
            kind=KIND_NUMBERS[price.kind],
            effective_time=timestamp(price.day, price.second),
            age=Duration(seconds=max(0, (today - price.day).days) * SECONDS_PER_DAY),
            source=price.source,
            spot_low_nanos_usd=price.spot_low_nanos,
            spot_median_nanos_usd=price.spot_median_nanos,
        ),
        instance_type=instance_type_message(value.instance_type),
        zones=value.zones,
        commitment=value.commitment,
        availability=AVAILABILITY_NUMBERS[value.availability],
    )


def status_message(value: ProviderStatus) -> pb.ProviderStatus:
    """What the catalog holds of one provider."""
    return pb.ProviderStatus(
        provider=value.provider,
        offer_count=value.offer_count,
        instance_type_count=value.instance_type_count,
        oldest_price_time=timestamp(value.oldest_price_day),
        newest_price_time=timestamp(value.newest_price_day),
        estimated_offer_count=value.estimated_offer_count,
    )


def timestamp(day: date, second: int = 0) -> Timestamp:
    """A second of a day UTC, midnight unless told."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return Timestamp(seconds=int(moment.timestamp()) + second)


def _host_memory(value: InstanceType | Machine) -> pb.HostMemory:
    return pb.HostMemory(
        nominal_bytes=value.host_nominal_bytes,
        usable_bytes=value.host_usable_bytes,
        overheads=[
            pb.Overhead(name=o.name, size_bytes=o.size_bytes, source=o.source)
            for o in value.overheads
        ],
    )


def _accelerators(value: InstanceType | Machine) -> pb.Accelerators | None:
    device = value.device
    if device is None:
        return None
    nvidia = device.vendor == "nvidia"
    return pb.Accelerators(
        device=device.name,
        count=value.device_count,
        slice=value.slice,
        driver_total_bytes=value.gpu_usable_bytes,
        nominal_bytes=int(device.nominal_bytes * value.slice),
        compute_capability=device.compute_capability if nvidia else "",
        link_gb_per_second=device.link_gb_per_second,
    )
