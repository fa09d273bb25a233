"""The catalog's values as messages."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sizewright.v1 import catalog_pb2 as pb
from sizewright_catalog.values import (
    MBPS_OF_GBPS,
    InstanceType,
    Interruption,
    Machine,
    Network,
    Offer,
)

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


@lru_cache(maxsize=2048)
def instance_type_message(value: InstanceType) -> pb.InstanceType:
    """An instance type, put into words once; copy before changing it."""
    return pb.InstanceType(
        name=value.name,
        provider=value.provider,
        type=value.type,
        vcpus=value.vcpus,
        cpu_architecture=value.cpu_architecture,
        host_memory=host_memory_message(value),
        accelerators=accelerators_message(value),
        unsizable_reason=value.unsizable_reason,
        availability=AVAILABILITY_NUMBERS[value.availability],
        local_disk_bytes=value.local_disk_bytes,
        local_disk_source=value.local_disk_source,
        network=network_message(value.network),
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
        spot_placement_score=value.placement_score,
        availability=AVAILABILITY_NUMBERS[value.availability],
        interruption=_interruption(value.interruption),
    )


def network_message(value: Network | None) -> pb.Network | None:
    """How nodes reach each other; None where nobody says."""
    if value is None:
        return None
    gbps = None if value.mbps is None else value.mbps / MBPS_OF_GBPS
    return pb.Network(bandwidth_gbps=gbps, fabric=value.fabric, source=value.source)


def _interruption(value: Interruption | None) -> pb.Interruption | None:
    if value is None:
        return None
    return pb.Interruption(
        low_percent=value.low_percent, high_percent=value.high_percent, source=value.source
    )


def moment(unix_seconds: float) -> Timestamp:
    """A moment in Unix seconds."""
    made = Timestamp()
    made.FromNanoseconds(round(unix_seconds * 1e9))
    return made


def timestamp(day: date, second: int = 0) -> Timestamp:
    """A second of a day UTC, midnight unless told."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return Timestamp(seconds=int(moment.timestamp()) + second)


def host_memory_message(value: InstanceType | Machine) -> pb.HostMemory:
    return pb.HostMemory(
        nominal_bytes=value.host_nominal_bytes,
        usable_bytes=value.host_usable_bytes,
        overheads=[
            pb.Overhead(name=o.name, size_bytes=o.size_bytes, source=o.source)
            for o in value.overheads
        ],
    )


def accelerators_message(value: InstanceType | Machine) -> pb.Accelerators | None:
    device = value.device
    if device is None:
        return None
    nvidia = device.vendor == "nvidia"
    return pb.Accelerators(
        device=device.name,
        count=value.device_count,
        slice=value.slice,
        driver_total_bytes=int((device.driver_total_bytes or 0) * value.slice),
        usable_bytes=value.gpu_usable_bytes,
        nominal_bytes=int(device.nominal_bytes * value.slice),
        compute_capability=device.compute_capability if nvidia else "",
        link_gb_per_second=device.link_gb_per_second,
    )
