"""AWS rows: DescribeInstanceTypes facts, list prices, and estimates labelled as such."""

from __future__ import annotations

from pathlib import Path

from sizewright_catalog.devices import find_device
from sizewright_catalog.providers.aws.network import SOURCE, network
from sizewright_catalog.rows import (
    Collected,
    OfferRow,
    TypeRow,
    gpu_capacity,
    host_bytes,
    nanos,
    read_csv,
)
from sizewright_catalog.values import MIB, Availability, Interruption, Network, PriceKind

PROVIDER = "aws"
ARCHITECTURES = {"x86_64": "x86_64", "arm64": "arm64"}
#: The June 2025 price cut of GPU types, seen in us-east-1 and verified in ap-south-1.
CUT_DAY = "2026-07-20"
GB = 10**9
#: Bands of the Spot Advisor: instances taken back within a month, in percent.
BANDS = {"<5%": (0, 5), "5-10%": (5, 10), "10-15%": (10, 15), "15-20%": (15, 20), ">20%": (20, 100)}


def collect(folder: Path, into: Collected) -> None:
    """Adds AWS's types and offers."""
    classes: dict[str, str] = {}
    for row in read_csv(folder, "aws_instance_types.csv"):
        if row["arch"] not in ARCHITECTURES:
            into.dropped["aws: no Linux on this architecture"] += 1
            continue
        into.types.append(_type(row))
        classes[row["instance_type"]] = row["usage_classes"]
    zones = {
        (r["instance_type"], r["region"]): r["az_suffixes"]
        for r in read_csv(folder, "aws_offerings.csv")
    }
    priced: set[tuple[str, str]] = set()
    base: dict[str, int] = {}
    for row in read_csv(folder, "aws_prices.csv"):
        if row["instance_type"] not in classes:
            into.dropped["aws: retired or without capabilities"] += 1
            continue
        _offers(row, classes[row["instance_type"]], zones, into, priced, base)
    _fill_holes(folder, zones, classes, priced, base, into)


def _type(row: dict[str, str]) -> TypeRow:
    nominal = int(row["memory_mib"]) * MIB
    visible, measured = host_bytes(nominal, row["os_visible_memory_mib"])
    device, count, share, capacity, reason = _accelerator(row)
    return TypeRow(
        provider=PROVIDER,
        type=row["instance_type"],
        vcpus=int(row["vcpus"]),
        cpu_architecture=ARCHITECTURES[row["arch"]],
        host_nominal_bytes=nominal,
        host_visible_bytes=visible,
        host_measured=measured,
        device=device,
        device_count=count,
        slice=share,
        gpu_usable_bytes=capacity,
        unsizable_reason=reason,
        availability=_availability(row["usage_classes"]),
        # A type without instance store says so in the API, and has no figure here.
        local_disk_bytes=int(float(row["local_storage_gb"] or 0) * GB),
        local_disk_source=SOURCE,
        network=_network(row),
    )


def _network(row: dict[str, str]) -> Network:
    baseline = float(row["net_baseline_gbps"]) if row["net_baseline_gbps"] else None
    return network(row["network_performance"], baseline, efa=row["efa_supported"] == "True")


def _availability(classes: str) -> Availability:
    if "on-demand" in classes or "spot" in classes:
        return "available"
    return "capacity-block-only" if "capacity-block" in classes else "reservation-only"


def _accelerator(row: dict[str, str]) -> tuple[str, int, float, int, str]:
    """Device, count, slice, usable bytes and reason against it.

    Fractional GPUs report a count of 0 and a logical count of 1; the API's own memory of Neuron
    devices is wrong for Trainium2, so devices come from the table alone.
    """
    if row["gpu_name"]:
        share = float(row["gpu_partition_size"] or 1)
        name = f"{row['gpu_manufacturer']} {row['gpu_name']}"
        device = find_device(name, PROVIDER, row["gpu_memory_mib"])
        capacity, reason = gpu_capacity(device, name, share)
        count = int(row["gpu_logical_count"])
        return (device.name if device else name, count, share, capacity, reason)
    if row["neuron_name"]:
        device = find_device(row["neuron_name"], PROVIDER)
        capacity, reason = gpu_capacity(device, row["neuron_name"], 1.0)
        named = device.name if device else row["neuron_name"]
        return named, int(row["neuron_devices"]), 1.0, capacity, reason
    other = row["fpga"] or row["media_accelerator"] or row["inference_accelerator"]
    return "", 0, 1.0, 0, f"accelerator {other} runs no framework known here" if other else ""


def _offers(
    row: dict[str, str],
    classes: str,
    zones: dict[tuple[str, str], str],
    into: Collected,
    priced: set[tuple[str, str]],
    base: dict[str, int],
) -> None:
    name, region, flags = row["instance_type"], row["region"], row["flags"]
    places = _zones(region, zones.get((name, region), ""))
    if row["on_demand_h"]:
        priced.add((name, region))
        if "metal_dedicated_tenancy_price" in flags:
            into.dropped["aws: dedicated price sold as shared"] += 1
        elif "on-demand" not in classes:
            into.dropped["aws: capacity blocks only"] += 1
        else:
            value, kind, day, source = _on_demand(row)
            if region == "us-east-1":
                base[name] = value
            into.offers.append(
                OfferRow(
                    PROVIDER,
                    name,
                    region,
                    places,
                    "on-demand",
                    value,
                    row["currency"],
                    kind,
                    day,
                    source,
                )
            )
    _spot(row, classes, places, into)


def _on_demand(row: dict[str, str]) -> tuple[int, PriceKind, str, str]:
    if row["on_demand_estimate_2026_h"]:
        source = f"{row['source']} {row['on_demand_date']} x the later cut seen in us-east-1"
        return nanos(row["on_demand_estimate_2026_h"]), "estimate", CUT_DAY, source
    return nanos(row["on_demand_h"]), "list", row["on_demand_date"], row["source"]


def _spot(row: dict[str, str], classes: str, places: str, into: Collected) -> None:
    if "spot" not in classes or not (row["spot_estimate_h"] or row["spot_h"]):
        return
    common = (PROVIDER, row["instance_type"], row["region"], places)
    taken = _interruption(row)
    if row["spot_estimate_h"] and "advisor_savings_0" not in row["flags"]:
        value = nanos(row["spot_estimate_h"])
        source = "on-demand x (1 - savings of the AWS Spot Advisor)"
        day = row["spot_advisor_date"]
        into.offers.append(
            OfferRow(
                *common,
                "spot",
                value,
                row["currency"],
                "estimate",
                day,
                source,
                interruption=taken,
            )
        )
    elif row["spot_h"]:
        into.offers.append(
            OfferRow(
                *common,
                "spot",
                nanos(row["spot_h"]),
                "USD",
                "list",
                row["spot_date"],
                "coroot/cloud-pricing",
                interruption=taken,
            )
        )
    else:
        into.dropped["aws: spot advisor has no saving"] += 1


def _interruption(row: dict[str, str]) -> Interruption | None:
    if not row["interruption_band"]:
        return None
    low, high = BANDS[row["interruption_band"]]
    return Interruption(low, high, f"AWS Spot Advisor {row['spot_advisor_date']}")


def _fill_holes(
    folder: Path,
    zones: dict[tuple[str, str], str],
    classes: dict[str, str],
    priced: set[tuple[str, str]],
    base: dict[str, int],
    into: Collected,
) -> None:
    """Offered types without a price in a region: us-east-1's price at the region's level."""
    levels = {
        (r["region"], r["kind"]): (r["median_ratio"], r["date"])
        for r in read_csv(folder, "aws_region_price_levels.csv")
    }
    accelerated = {t.type for t in into.types if t.device}
    for (name, region), suffixes in sorted(zones.items()):
        kind = "accelerated" if name in accelerated else "cpu"
        level = levels.get((region, kind))
        if (name, region) in priced or name not in base or level is None:
            continue
        if "on-demand" not in classes.get(name, ""):
            continue
        ratio, day = level
        value = base[name] * nanos(ratio) // 10**9
        source = "us-east-1 price x median price level of the region"
        into.offers.append(
            OfferRow(
                PROVIDER,
                name,
                region,
                _zones(region, suffixes),
                "on-demand",
                value,
                "USD",
                "estimate",
                day,
                source,
            )
        )


def _zones(region: str, suffixes: str) -> str:
    return " ".join(region + suffix for suffix in suffixes)
