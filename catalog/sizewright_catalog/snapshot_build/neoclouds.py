"""Rows of smaller GPU clouds: hand-kept price lists, most of them per GPU and without a region."""

from __future__ import annotations

import re
from pathlib import Path

from sizewright_catalog.capacity import guest_visible_bytes
from sizewright_catalog.devices import find_device
from sizewright_catalog.snapshot_build.rows import (
    Collected,
    OfferRow,
    TypeRow,
    gpu_capacity,
    nanos,
    read_csv,
)
from sizewright_catalog.values import GIB, Term

#: The day of rows whose source gives a commit instead of a date: the oldest it can be.
COMMIT_DAYS = {"skypilot-catalog 0082b0435f39": "2025-01-01"}


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
    count = int(row["gpu_count"] or 0)
    named = row["gpu_name"] or row["gpu_name_provider"]
    device = find_device(named, row["provider"]) if named and count else None
    capacity, reason = gpu_capacity(device, named, 1.0) if named and count else (0, "")
    if not nominal:
        reason = "the source states no host memory"
    return TypeRow(
        provider=row["provider"],
        type=re.sub(r"[^A-Za-z0-9._-]+", "-", row["offer"].strip()),
        vcpus=int(float(row["vcpus"] or 0)),
        cpu_architecture="x86_64",
        host_nominal_bytes=nominal,
        host_visible_bytes=guest_visible_bytes(nominal) if nominal else 0,
        host_measured=False,
        device=device.name if device else (named if count else ""),
        device_count=count,
        gpu_usable_bytes=capacity,
        unsizable_reason=reason,
    )


def _offers(row: dict[str, str], made: TypeRow, into: Collected) -> None:
    if row["notes"].startswith("DOUBTFUL"):
        into.dropped["smaller clouds: doubtful price"] += 1
        return
    if row["tier"] in ("36mo", "6mo"):
        into.dropped["smaller clouds: commitment of fixed months"] += 1
        return
    per_gpu = row["price_basis"].startswith("per GPU")
    times = max(made.device_count, 1) if per_gpu else 1
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
                "list",
                _day(row["date"]),
                row["source"],
            )
        )


def _day(text: str) -> str:
    for prefix, day in COMMIT_DAYS.items():
        if text.startswith(prefix):
            return day
    return text
