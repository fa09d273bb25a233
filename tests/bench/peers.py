"""Peers over our rows in their own form, each in its own virtual environment: `make peers`."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.values import TERMS

PEERS_PYTHON = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
GIB, NANOS = 2**30, 10**9
RUNS = 7
FASTER = 50.0

#: gpuhunt's columns, version 2 of its catalog files.
GPUHUNT_COLUMNS = (
    *("instance_name", "location", "price", "cpu", "memory", "gpu_count", "gpu_name"),
    *("gpu_memory", "spot", "disk_size", "gpu_vendor", "flags", "cpu_arch", "provider_data"),
)
#: The providers gpuhunt reads from files; the rows of all others stand under its last one.
GPUHUNT_PROVIDERS = ("aws", "azure", "gcp", "lambdalabs", "nebius", "oci", "runpod", "cloudrift")
GPUHUNT_VENDORS = ("nvidia", "amd", "google", "intel")


def peer_figures(catalog: Catalog, ours_ms: dict[str, float], folder: Path) -> list[Figure]:
    """How many times slower gpuhunt's query is than a whole Recommend, for each kind of question.

    Empty where the peers are not installed.
    """
    if not PEERS_PYTHON.exists():
        return []
    write_gpuhunt_rows(catalog, folder)
    peer = _run("peer_gpuhunt.py", folder)
    return [
        Figure(
            f"gpuhunt's query over our rows / {name}",
            peer["median_ms"] / milliseconds,
            "x",
            FASTER,
            "at-least",
            beside={
                "gpuhunt_ms": peer["median_ms"],
                "gpuhunt_least_ms": peer["least_ms"],
                "ours_ms": milliseconds,
                "gpuhunt_load_ms": peer["load_ms"],
            },
            basis=f"gpuhunt in memory over {peer['rows']:,} rows, {peer['found']:,} found",
        )
        for name, milliseconds in ours_ms.items()
    ]


def write_gpuhunt_rows(catalog: Catalog, folder: Path) -> None:
    """Every offer in US dollars as a row of the CSV file of its provider."""
    rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in GPUHUNT_PROVIDERS}
    columns = catalog.offers
    parts = (columns.type, columns.region, columns.term, columns.nanos, columns.currency)
    for number, region, term, nanos, currency in zip(*(p.tolist() for p in parts), strict=True):
        if catalog.currencies[currency] != "USD":
            continue
        made = _row(catalog, number)
        provider = catalog.providers[int(catalog.types.provider[number])]
        name = provider if provider in rows else GPUHUNT_PROVIDERS[-1]
        spot = str(TERMS[term] == "spot")
        rows[name].append(
            (made[0], catalog.regions[region], nanos / NANOS, *made[1:6], spot, "", *made[6:])
        )
    for name, found in rows.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(GPUHUNT_COLUMNS)
            writer.writerows(found)


def _row(catalog: Catalog, number: int) -> tuple[object, ...]:
    """An instance type's own columns, in order."""
    kind = catalog.instance_type(number)
    memory = kind.host_nominal_bytes / GIB
    arch = "arm" if kind.cpu_architecture == "arm64" else "x86"
    device = kind.device
    if device is None or device.vendor not in GPUHUNT_VENDORS or kind.device_count == 0:
        return kind.type, kind.vcpus, memory, 0, "", "", "", "", arch, "{}"
    gpu_memory = device.nominal_bytes * kind.slice / GIB
    count, vendor = kind.device_count, device.vendor
    return kind.type, kind.vcpus, memory, count, device.name, gpu_memory, vendor, "", arch, "{}"


def _run(script: str, folder: Path) -> dict[str, Any]:
    path = Path(__file__).with_name(script)
    command = [str(PEERS_PYTHON), str(path), str(folder), str(RUNS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
