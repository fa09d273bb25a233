"""What every provider gives, whatever its API: type rows, offer rows, counts of what was dropped.

Rows are values on their way into the catalog; they live for one page and become columns at once.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from sizewright_catalog.capacity import guest_visible_bytes, usable_bytes
from sizewright_catalog.values import (
    NANOS,
    Availability,
    Device,
    Interruption,
    Network,
    PriceKind,
    Term,
)


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One instance type. Bytes; `gpu_usable_bytes` per device.

    `device` is the canonical name, or the provider's where the device table has none; then
    `unsizable_reason` says so. `stated_device_bytes` is what the source says of one device (of one
    slice for a fraction), 0 where it says nothing: the gate holds it against the device table.
    `local_disk_bytes` come with it; None where the source says nothing, as `network`.
    """

    provider: str
    type: str
    vcpus: int
    cpu_architecture: str
    host_nominal_bytes: int
    host_visible_bytes: int
    host_measured: bool
    device: str = ""
    device_count: int = 0
    slice: float = 1.0
    gpu_usable_bytes: int = 0
    unsizable_reason: str = ""
    availability: Availability = "available"
    stated_device_bytes: int = 0
    local_disk_bytes: int | None = None
    local_disk_source: str = ""
    network: Network | None = None

    @property
    def host_usable_bytes(self) -> int:
        """What a job can have."""
        return usable_bytes(self.host_visible_bytes)


@dataclass(frozen=True, slots=True)
class OfferRow:
    """One priced offer; the price in nano-units of its currency, per node and hour.

    `zones` are where it is offered, blank-separated. `zone` is set only where the price holds for
    that zone alone, as spot prices do. `commitment` names what a committed price asks for, such as
    "reserved-1y-no-upfront"; it is lower-kebab and becomes part of the offer's name.
    `day` is when the price was true: an ISO day, or an ISO time in UTC where the source is as
    exact as that ("2026-11-24T21:03:00Z"). The spot figures are over the source's own history;
    0 where unknown. `placement_score` is the provider's word for how likely spot capacity is to be
    had there, from 1 to 10; 0 where nobody asked. `interruption` is of spot alone.
    """

    provider: str
    type: str
    region: str
    zones: str
    term: Term
    per_hour_nanos: int
    currency: str
    kind: PriceKind
    day: str
    source: str
    zone: str = ""
    commitment: str = ""
    availability: Availability = "available"
    spot_low_nanos: int = 0
    spot_median_nanos: int = 0
    placement_score: int = 0
    interruption: Interruption | None = None


@dataclass(slots=True)
class Collected:
    """Rows of all providers, and how many were dropped for which reason."""

    types: list[TypeRow] = field(default_factory=list)
    offers: list[OfferRow] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    sources: dict[str, str] = field(default_factory=dict)


def read_csv(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with (folder / name).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def nanos(text: str) -> int:
    """A decimal price as nano-units, exact to the nano."""
    return int((Decimal(text) * NANOS).to_integral_value())


def host_bytes(nominal_bytes: int, visible_mib: str) -> tuple[int, bool]:
    """What the guest sees, and whether that was measured."""
    if visible_mib:
        return int(visible_mib) * 2**20, True
    return guest_visible_bytes(nominal_bytes), False


def gpu_capacity(device: Device | None, named: str, share: float) -> tuple[int, str]:
    """Usable bytes of one device or slice, or why there is no telling."""
    if device is None:
        return 0, f"device {named} is not in the device table"
    if device.usable_bytes is None:
        return 0, f"no driver reading is known for {device.name}"
    return int(device.usable_bytes * share), ""
