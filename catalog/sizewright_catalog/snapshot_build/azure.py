"""Azure rows: ResourceSkus capabilities, pay-as-you-go Linux prices, and old spot prices."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sizewright_catalog.devices import find_device
from sizewright_catalog.rows import (
    Collected,
    OfferRow,
    TypeRow,
    gpu_capacity,
    host_bytes,
    nanos,
    read_csv,
)
from sizewright_catalog.type_facts import documented
from sizewright_catalog.values import GIB, MIB, Network

PROVIDER = "azure"
ARCHITECTURES = {"x64": "x86_64", "Arm64": "arm64"}
SOURCE = "Azure resource SKUs"


def collect(folder: Path, into: Collected, today: str) -> None:
    """Adds Azure's types and offers; `today` decides which sizes are retired."""
    known: set[str] = set()
    for row in read_csv(folder, "azure_vm_sizes.csv"):
        retired = _retired(row["retirement_date"], today)
        made = _type(row, retired)
        into.types.append(made)
        if not retired:
            known.add(made.type)
    for row in read_csv(folder, "azure_prices.csv"):
        # Some names arrive with trailing blanks.
        name = row["size"].strip()
        if name not in known:
            into.dropped["azure: no capability record or retired"] += 1
            continue
        _offers(name, row, into)


def _retired(text: str, today: str) -> bool:
    if not text:
        return False
    return datetime.strptime(text, "%m/%d/%Y").date().isoformat() <= today


def _type(row: dict[str, str], retired: bool) -> TypeRow:
    nominal = int(float(row["memory_gib_api"]) * GIB)
    visible, measured = host_bytes(nominal, "")
    named = row["accelerator"]
    share = float(row["gpu_fraction"] or 1)
    device = find_device(named, PROVIDER) if named else None
    capacity, reason = gpu_capacity(device, named, share) if named else (0, "")
    return TypeRow(
        provider=PROVIDER,
        type=row["size"].strip(),
        # Constrained-core sizes have more vCPUs in the machine than the guest may use.
        vcpus=int(row["vcpus_available"] or row["vcpus"]),
        cpu_architecture=ARCHITECTURES[row["arch"]],
        host_nominal_bytes=nominal,
        host_visible_bytes=visible,
        host_measured=measured,
        device=device.name if device else named,
        device_count=int(row["gpus_api"] or 0),
        slice=share,
        gpu_usable_bytes=capacity,
        unsizable_reason=reason,
        availability="retired" if retired else "available",
        local_disk_bytes=_local_disk_bytes(row),
        local_disk_source=SOURCE,
        network=_network(row),
    )


def _local_disk_bytes(row: dict[str, str]) -> int | None:
    """The temporary disk (MaxResourceVolumeMB, which are MiB) and the NVMe disks beside it."""
    if not row["local_temp_mb"]:
        return None
    return (int(row["local_temp_mb"]) + int(row["nvme_mib"] or 0)) * MIB


def _network(row: dict[str, str]) -> Network | None:
    """What is documented of the size; else whether it has RDMA, and no figure."""
    facts = documented(PROVIDER, row["size"].strip())
    if facts is not None:
        return facts.network
    if not row["rdma"]:
        return None
    return Network(None, "infiniband" if row["rdma"] == "True" else "ethernet", SOURCE)


def _offers(name: str, row: dict[str, str], into: Collected) -> None:
    flags = row["flags"].split(";")
    on_demand, spot = row["on_demand_usd_h"], row["spot_usd_h"]
    if "price_zero" in flags or (on_demand and nanos(on_demand) == 0):
        into.dropped["azure: price 0"] += 1
    elif on_demand:
        into.offers.append(
            OfferRow(
                PROVIDER,
                name,
                row["region"],
                "",
                "on-demand",
                nanos(on_demand),
                "USD",
                "list",
                row["on_demand_date"],
                "karpenter-provider-azure",
            )
        )
    if not spot:
        return
    if "spot_maybe_windows_meter" in flags:
        into.dropped["azure: spot price may be a Windows meter"] += 1
    elif nanos(spot) == 0 or (on_demand and nanos(spot) >= nanos(on_demand)):
        into.dropped["azure: spot price is a placeholder"] += 1
    else:
        into.offers.append(
            OfferRow(
                PROVIDER,
                name,
                row["region"],
                "",
                "spot",
                nanos(spot),
                "USD",
                "list",
                row["spot_date"],
                "coroot/cloud-pricing",
            )
        )
