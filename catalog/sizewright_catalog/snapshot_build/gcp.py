"""Google Cloud rows: machine types, whole-machine prices, composed prices labelled as such."""

from __future__ import annotations

from pathlib import Path

from sizewright_catalog.devices import find_device
from sizewright_catalog.providers.gcp.machines import (
    local_disk_bytes,
    network_of,
    ssd_partitions,
)
from sizewright_catalog.rows import (
    Collected,
    OfferRow,
    TypeRow,
    gpu_capacity,
    host_bytes,
    nanos,
    read_csv,
)
from sizewright_catalog.values import MIB, Availability, PriceKind, Term

PROVIDER = "gcp"
#: Sold as spot, reservation or flex-start alone, whatever the on-demand SKU says.
NO_ON_DEMAND = ("a4-", "a4x-", "a3-ultragpu", "a3-highgpu-1g", "a3-highgpu-2g", "a3-highgpu-4g")


def collect(folder: Path, into: Collected) -> None:
    """Adds Google Cloud's types and offers."""
    places: dict[str, tuple[set[str], list[str]]] = {}
    for row in read_csv(folder, "gcp_machine_types.csv"):
        into.types.append(_type(row))
        if row["deprecated"]:
            continue
        places[row["machine_type"]] = (set(row["regions"].split(";")), row["zones"].split(";"))
    for row in read_csv(folder, "gcp_prices.csv"):
        known = places.get(row["machine_type"])
        if known is None or row["region"] not in known[0]:
            into.dropped["gcp: retired or not offered in that region"] += 1
            continue
        zones = " ".join(z for z in known[1] if z.rsplit("-", 1)[0] == row["region"])
        _offers(row, zones, into)


def _type(row: dict[str, str]) -> TypeRow:
    nominal = int(row["memory_mib"]) * MIB
    visible, measured = host_bytes(nominal, "")
    named = row["accelerator"] or row["accelerator_type"]
    share = float(row["accelerator_fraction"] or 1)
    device = find_device(named, PROVIDER) if named else None
    capacity, reason = gpu_capacity(device, named, share) if named else (0, "")
    return TypeRow(
        provider=PROVIDER,
        type=row["machine_type"],
        vcpus=int(float(row["vcpus"])),
        cpu_architecture="arm64" if row["architecture"] == "ARM64" else "x86_64",
        host_nominal_bytes=nominal,
        host_visible_bytes=visible,
        host_measured=measured,
        device=device.name if device else named,
        device_count=int(row["accelerator_count"] or 0),
        slice=share,
        gpu_usable_bytes=capacity,
        unsizable_reason=reason,
        availability="retired" if row["deprecated"] else "available",
        local_disk_bytes=local_disk_bytes(row["machine_type"], ssd_partitions(row["description"])),
        local_disk_source="Compute Engine machine types and documentation",
        network=network_of(row["machine_type"]),
    )


def _offers(row: dict[str, str], zones: str, into: Collected) -> None:
    composed = row["composed"] == "True"
    kind: PriceKind = "composed" if composed else "list"
    name = row["machine_type"]
    if row["on_demand_usd_h"]:
        reserved = name.startswith(NO_ON_DEMAND)
        sale: Availability = "reservation-only" if reserved else "available"
        _add(row, zones, "on-demand", row["on_demand_usd_h"], kind, into, sale)
    if row["spot_usd_h"] and row["spot_usd_h"] == row["on_demand_usd_h"]:
        into.dropped["gcp: spot price is a placeholder"] += 1
    elif row["spot_usd_h"]:
        _add(row, zones, "spot", row["spot_usd_h"], kind, into)


def _add(
    row: dict[str, str],
    zones: str,
    term: Term,
    price: str,
    kind: PriceKind,
    into: Collected,
    sale: Availability = "available",
) -> None:
    value = nanos(price)
    if value <= 0:
        into.dropped["gcp: price 0"] += 1
        return
    into.offers.append(
        OfferRow(
            PROVIDER,
            row["machine_type"],
            row["region"],
            zones,
            term,
            value,
            "USD",
            kind,
            row["date"],
            row["source"],
            availability=sale,
        )
    )
