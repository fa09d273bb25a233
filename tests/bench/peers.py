"""Peers over our rows in their own form, each in its own virtual environment: `make peers`."""

from __future__ import annotations

import csv
import json
import math
import os
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


#: SkyPilot's columns of a cloud's machines, and the version of the form.
SKYPILOT_COLUMNS = (
    *("InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "GpuInfo"),
    *("Price", "SpotPrice", "Region", "AvailabilityZone", "Arch", "Generation"),
)
SKYPILOT_FORM = "v8"
SKYPILOT_TERMS = ("on-demand", "spot")


def peer_figures(
    catalog: Catalog, ours_ms: dict[str, float], folder: Path
) -> tuple[list[Figure], list[str]]:
    """How many times slower each peer is than a whole Recommend, for each kind of question.

    With them, in words, which peer could not be asked and why.
    """
    figures: list[Figure] = []
    missing: list[str] = []
    for name, write, script in (
        ("gpuhunt's query", write_gpuhunt_rows, "peer_gpuhunt.py"),
        ("SkyPilot's optimizer", write_skypilot_rows, "peer_skypilot.py"),
    ):
        home = folder / script.removesuffix(".py")
        home.mkdir()
        write(catalog, home)
        try:
            peer = _run(script, home)
        except (OSError, subprocess.SubprocessError) as error:
            missing.append(f"{name} over our rows: {_why(error)}")
            continue
        figures += [_compared(name, peer, kind, ours) for kind, ours in ours_ms.items()]
    return figures, missing


def _compared(name: str, peer: dict[str, Any], kind: str, ours_ms: float) -> Figure:
    return Figure(
        f"{name} over our rows / {kind}",
        peer["median_ms"] / ours_ms,
        "x",
        FASTER,
        "at-least",
        beside={
            "peer_ms": peer["median_ms"],
            "peer_least_ms": peer["least_ms"],
            "ours_ms": ours_ms,
            "peer_load_ms": peer["load_ms"],
        },
        basis=f"{name} in memory over {peer['rows']:,} rows in its own CSV form",
    )


def _why(error: Exception) -> str:
    """The last line a peer said, or that it is not installed."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if line.strip()]
        return lines[-1] if lines else str(error)
    return "not installed (make peers)" if isinstance(error, OSError) else str(error)


def write_skypilot_rows(catalog: Catalog, home: Path) -> None:
    """Every instance type in a region with its prices in US dollars, as machines of one cloud.

    SkyPilot keeps a file for each cloud and looks into each; some of its clouds price GPUs apart
    from machines, so that the rows of all stand under the one whose machines are whole.
    """
    columns, prices = catalog.offers, dict[tuple[int, int], list[float]]()
    parts = (columns.type, columns.region, columns.term, columns.nanos, columns.currency)
    for number, region, term, nanos, currency in zip(*(p.tolist() for p in parts), strict=True):
        if catalog.currencies[currency] != "USD" or TERMS[term] not in SKYPILOT_TERMS:
            continue
        of_terms = prices.setdefault((number, region), [math.inf, math.inf])
        at = SKYPILOT_TERMS.index(TERMS[term])
        of_terms[at] = min(of_terms[at], nanos / NANOS)
    forms = home / ".sky" / "catalogs" / SKYPILOT_FORM
    for folder in ("aws", "common"):
        (forms / folder).mkdir(parents=True)
    names = set()
    with (forms / "aws" / "vms.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(SKYPILOT_COLUMNS)
        for (number, region), (rented, spot) in prices.items():
            made = _row(catalog, number)
            names.add(made[4])
            writer.writerow(_skypilot_row(made, catalog.regions[region], rented, spot))
    for file_name, header, lines in (
        ("aws/images.csv", "Tag,Region,OS,OSVersion,ImageId,CreationDate", []),
        (
            "aws/instance_quota_mapping.csv",
            "InstanceType,SpotInstanceCode,OnDemandInstanceCode",
            [],
        ),
        ("common/metadata.csv", "GPU,MemoryGB,Manufacturer", []),
        ("common/accelerators.csv", "AcceleratorName,Clouds", [f"{n},['AWS']" for n in names if n]),
    ):
        text = "\n".join((header, *lines)) + "\n"
        (forms / file_name).write_text(text, encoding="utf-8")


def _skypilot_row(
    made: tuple[object, ...], region: str, rented: float, spot: float
) -> tuple[object, ...]:
    kind, vcpus, memory, count, device, gpu_gib, _, _, arch, _ = made
    mib = f"{float(str(gpu_gib)) * 1024:.0f}" if count else ""
    gpu = f"{{'Gpus': [{{'MemoryInfo': {{'SizeInMiB': {mib}}}}}]}}" if count else ""
    dollars = ("" if math.isinf(price) else price for price in (rented, spot))
    shape = (kind, device if count else "", count or "", vcpus, memory, gpu)
    return (*shape, *dollars, region, f"{region}a", "arm64" if arch == "arm" else "x86_64", "")


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
    """One peer's figures. Raises OSError or SubprocessError where it cannot be asked."""
    path = Path(__file__).with_name(script)
    command = [str(PEERS_PYTHON), str(path), str(folder), str(RUNS)]
    env = {**os.environ, "HOME": str(folder), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600, env=env)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
