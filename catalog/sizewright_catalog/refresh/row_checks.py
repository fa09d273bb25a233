"""Checks that need one row alone: what is wrong in itself never goes in."""

from __future__ import annotations

from sizewright_catalog.devices import devices
from sizewright_catalog.refresh.limits import limits
from sizewright_catalog.rows import OfferRow, TypeRow
from sizewright_catalog.values import GIB, NANOS


def type_problem(row: TypeRow, provider: str) -> str:
    """Why a type may not go in; empty when it may."""
    if row.provider != provider:
        return f"a type of {row.provider!r}"
    if not row.type.strip() or row.type != row.type.strip():
        return "a type whose name is empty or begins or ends with a blank"
    if row.vcpus < 0 or row.host_nominal_bytes < 0 or row.device_count < 0:
        return "a negative number of vCPUs, bytes or devices"
    if row.host_visible_bytes > row.host_nominal_bytes:
        return "more memory in the guest than is sold"
    return _device_problem(row)


def _device_problem(row: TypeRow) -> str:
    """Whether the source's memory per device is that of the device it names."""
    device = devices().get(row.device)
    if device is None or row.stated_device_bytes == 0:
        return ""
    sold = device.nominal_bytes * row.slice
    if _near(row.stated_device_bytes, sold):
        return ""
    stated = f"{row.stated_device_bytes / GIB:.0f} GiB stated for one {device.name}"
    if row.device_count > 1 and _near(row.stated_device_bytes, sold * row.device_count):
        return f"{stated}: the total of {row.device_count} devices as that of one"
    return f"{stated} of {sold / GIB:.0f} GiB"


def _near(one: float, other: float) -> bool:
    return abs(one / other - 1) <= limits().device_memory_tolerance


def offer_problem(row: OfferRow, provider: str, region: str | None) -> str:
    """Why an offer may not go in; empty when it may. `region` is the one it must be in, if any."""
    if row.provider != provider:
        return f"an offer of {row.provider!r}"
    if not row.region or (region is not None and row.region != region):
        return f"an offer of another region, {row.region!r}"
    if row.per_hour_nanos == 0:
        return "a price of 0"
    dollars = row.per_hour_nanos / NANOS
    within = limits().least_dollars_per_hour <= dollars <= limits().most_dollars_per_hour
    if row.currency == "USD" and not within:
        return "a price outside of what machines cost by the hour"
    if row.per_hour_nanos < 0:
        return "a negative price"
    return ""
