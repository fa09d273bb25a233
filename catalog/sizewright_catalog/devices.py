"""The device table: figures of accelerators, and the names providers give them."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

from sizewright_catalog.capacity import gpu_reserve_bytes
from sizewright_catalog.values import MIB, Device

#: Words the NVIDIA driver puts around the name on the box.
DRIVER_WORDS = ("NVIDIA ", "GeForce ", " GPU")


@cache
def devices() -> dict[str, Device]:
    """Every known device by canonical name."""
    made = {}
    for row in _rows("devices.csv"):
        driver = int(row["driver_memory_mib"] or 0) * MIB
        usable, usable_evidence = _usable(row, driver)
        made[row["name"]] = Device(
            name=row["name"],
            vendor=row["vendor"].lower(),
            architecture=row["architecture"],
            # Vendors sell "GB" that are GiB for HBM and GDDR parts alike.
            nominal_bytes=int(row["memory_gb_nominal"]) * 1024 * MIB,
            driver_total_bytes=driver or None,
            usable_bytes=usable,
            compute_capability=row["compute_capability"],
            link_gb_per_second=float(row["link_gb_s_bidir"] or 0),
            evidence=row["evidence"] or "customary driver reading, not looked up",
            usable_evidence=usable_evidence,
        )
    return made


def _usable(row: dict[str, str], driver_total_bytes: int) -> tuple[int | None, str]:
    """What the runtime can hand out of a device, and how that is known."""
    if row["usable_mib"]:
        return int(row["usable_mib"]) * MIB, row["usable_evidence"]
    if not driver_total_bytes:
        return None, "no reading is known"
    if row["vendor"] != "NVIDIA":
        return driver_total_bytes, "the driver's total: what it keeps is not known"
    usable = driver_total_bytes - gpu_reserve_bytes(driver_total_bytes)
    return usable, "the driver's total less the largest reserve seen in its size class"


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


def find_by_driver_name(name: str, driver_total_bytes: int | None) -> Device | None:
    """The device that the NVIDIA driver calls by a name; None when nobody knows it.

    One name can stand for boards of different memory, told apart by the driver's total.
    """
    memory = str((driver_total_bytes or 0) // MIB)
    found = find_device(name, "nvml", memory)
    if found is not None:
        return found
    for word in DRIVER_WORDS:
        name = name.replace(word, " ")
    return find_device("-".join(name.split()))


def _rows(file: str) -> list[dict[str, str]]:
    path = resources.files("sizewright_catalog").joinpath("data").joinpath(file)
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
