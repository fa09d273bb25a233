"""The device table: figures of accelerators, and the names providers give them."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

from sizewright_catalog.values import MIB, Device


@cache
def devices() -> dict[str, Device]:
    """Every known device by canonical name."""
    made = {}
    for row in _rows("devices.csv"):
        driver = row["driver_memory_mib"]
        made[row["name"]] = Device(
            name=row["name"],
            vendor=row["vendor"].lower(),
            architecture=row["architecture"],
            # Vendors sell "GB" that are GiB for HBM and GDDR parts alike.
            nominal_bytes=int(row["memory_gb_nominal"]) * 1024 * MIB,
            driver_total_bytes=int(driver) * MIB if driver else None,
            compute_capability=row["compute_capability"],
            link_gb_per_second=float(row["link_gb_s_bidir"] or 0),
            evidence=row["evidence"] or "customary driver reading, not looked up",
        )
    return made


@cache
def _aliases() -> dict[tuple[str, str], str]:
    """(provider, lower-case name, memory) and (provider, lower-case name) to canonical names."""
    found: dict[tuple[str, str], str] = {}
    for row in _rows("device_aliases.csv"):
        name = row["provider_name"].lower()
        found[row["provider"], f"{name}|{row['provider_memory_mib']}"] = row["canonical"]
        found.setdefault((row["provider"], name), row["canonical"])
        found.setdefault(("", name), row["canonical"])
    return found


def find_device(name: str, provider: str = "", memory_mib: str = "") -> Device | None:
    """The device a provider (or a driver) means by a name; None when nobody knows it."""
    known = devices()
    if name in known:
        return known[name]
    lower, aliases = name.lower(), _aliases()
    for key in ((provider, f"{lower}|{memory_mib}"), (provider, lower), ("", lower)):
        if key in aliases:
            return known.get(aliases[key])
    return None


def _rows(file: str) -> list[dict[str, str]]:
    path = resources.files("sizewright_catalog").joinpath("data").joinpath(file)
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
