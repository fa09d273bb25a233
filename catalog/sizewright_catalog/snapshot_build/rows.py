"""What every provider's reader gives: type rows, offer rows, and counts of what it dropped."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from sizewright_catalog.capacity import guest_visible_bytes, usable_bytes
from sizewright_catalog.values import NANOS, Device, PriceKind, Term


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One instance type. Bytes; `gpu_usable_bytes` per device."""

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

    @property
    def host_usable_bytes(self) -> int:
        """What a job can have."""
        return usable_bytes(self.host_visible_bytes)


@dataclass(frozen=True, slots=True)
class OfferRow:
    """One priced offer; the price in nano-units of its currency."""

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
    if device.driver_total_bytes is None:
        return 0, f"no driver reading is known for {device.name}"
    return int(device.driver_total_bytes * share), ""
