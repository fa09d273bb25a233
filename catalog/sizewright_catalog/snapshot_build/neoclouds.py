"""Rows of smaller GPU clouds: hand-kept price lists, most of them per GPU and without a region."""

from __future__ import annotations

import re
from pathlib import Path

from sizewright_catalog.capacity import guest_visible_bytes
from sizewright_catalog.devices import find_device
from sizewright_catalog.rows import (
    Collected,
    OfferRow,
    TypeRow,
    gpu_capacity,
    nanos,
    read_csv,
)
from sizewright_catalog.type_facts import documented
from sizewright_catalog.values import GIB, Device, PriceKind, Term

#: The day of rows whose source gives a commit instead of a date: the oldest it can be.
COMMIT_DAYS = {"skypilot-catalog 0082b0435f39": "2025-01-01"}

#: Devices that sit on one board with an Arm processor.
ON_ARM = ("GH200", "GB200", "GB300")
#: Words of the collectors' notes on prices that nobody published.
ESTIMATED = re.compile(r"estimate|approximate price", re.IGNORECASE)
SOLD_AS = re.compile(r"\(sold as (\d+)\)")

#: Decimal for binary gigabytes is 7 %; what is further off is another device.
DISAGREEMENT = 0.1


def collect(folder: Path, into: Collected) -> None:
    """Adds the smaller clouds' types and offers."""
    seen: dict[tuple[str, str], TypeRow] = {}
    for row in read_csv(folder, "neocloud_offers.csv"):
        made = _type(row)
        key = (made.provider, made.type)
        if key not in seen:
            seen[key] = made
            into.types.append(made)
        _offers(row, seen[key], into)


def _type(row: dict[str, str]) -> TypeRow:
    nominal = int(float(row["memory_gb"] or 0) * GIB)
    count = _count(row)
    # The provider's own name first: the collector took some names for others (RTX A4000 for A40).
    named = row["gpu_name_provider"] or row["gpu_name"]
    device = _device(row, named) if named and count else None
    capacity, reason = gpu_capacity(device, named, 1.0) if named and count else (0, "")
    if device is not None and _disagrees(row["gpu_memory_gb"], device):
        reason = f"{row['gpu_memory_gb']} GB is stated for a {device.name}"
    if not nominal:
        reason = "the source states no host memory"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", row["offer"].strip())
    facts = documented(row["provider"], name)
    return TypeRow(
        provider=row["provider"],
        type=name,
        vcpus=int(float(row["vcpus"] or 0)),
        cpu_architecture="arm64" if device and device.name in ON_ARM else "x86_64",
        host_nominal_bytes=nominal,
        host_visible_bytes=guest_visible_bytes(nominal) if nominal else 0,
        host_measured=False,
        device=device.name if device else (named if count else ""),
        device_count=count,
        gpu_usable_bytes=capacity,
        unsizable_reason=reason,
        network=facts.network if facts else None,
    )


def _count(row: dict[str, str]) -> int:
    """GPUs of the instance; a row per GPU may say how many are sold together."""
    together = SOLD_AS.search(row["price_basis"])
    return int(together[1]) if together else int(row["gpu_count"] or 0)


def _device(row: dict[str, str], named: str) -> Device | None:
    return find_device(named, row["provider"]) or find_device(row["gpu_name"], row["provider"])


def _disagrees(stated_gb: str, device: Device) -> bool:
    """Whether the stated memory is not that of the device, decimal or binary."""
    if not stated_gb:
        return False
    return abs(float(stated_gb) * GIB / device.nominal_bytes - 1) > DISAGREEMENT


def _offers(row: dict[str, str], made: TypeRow, into: Collected) -> None:
    if row["notes"].startswith("DOUBTFUL"):
        into.dropped["smaller clouds: doubtful price"] += 1
        return
    if row["tier"] in ("36mo", "6mo"):
        into.dropped["smaller clouds: commitment of fixed months"] += 1
        return
    per_gpu = row["price_basis"].startswith("per GPU")
    times = max(made.device_count, 1) if per_gpu else 1
    kind: PriceKind = "estimate" if ESTIMATED.search(row["notes"]) else "list"
    terms: tuple[tuple[Term, str], ...] = (
        ("on-demand", row["on_demand_usd_h"]),
        ("spot", row["spot_usd_h"]),
    )
    for term, price in terms:
        if not price or nanos(price) <= 0:
            continue
        into.offers.append(
            OfferRow(
                made.provider,
                made.type,
                row["region"] or "global",
                "",
                term,
                nanos(price) * times,
                "USD",
                kind,
                _day(row["date"]),
                row["source"],
            )
        )


def _day(text: str) -> str:
    for prefix, day in COMMIT_DAYS.items():
        if text.startswith(prefix):
            return day
    return text
