"""Prices read from the CSV files a second time, by rules of their own: nothing of the builder.

What the files' own notes say of each row is followed: which prices are placeholders, retired,
dedicated, doubtful or not for sale by the hour.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

Row = dict[str, str]
#: Google sells these as spot or reservations alone.
GCP_BY_RESERVATION = re.compile(r"a4-|a4x-|a3-ultragpu|a3-highgpu-[124]g")


@dataclass(frozen=True)
class SourcePrice:
    """What an hour of a type costs in a region, in US dollars."""

    provider: str
    type: str
    region: str
    term: str
    dollars: Decimal


def source_prices(folder: Path, today: str) -> Iterator[SourcePrice]:
    """Every price in US dollars by which a machine can be had by the hour."""
    yield from _aws(folder)
    yield from _aws_levels(folder)
    yield from _azure(folder, today)
    yield from _gcp(folder)
    yield from _smaller(folder)


def _read(folder: Path, name: str) -> list[Row]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _aws_classes(folder: Path) -> dict[str, str]:
    rows = _read(folder, "aws_instance_types.csv")
    return {
        r["instance_type"]: r["usage_classes"] for r in rows if r["arch"] in ("x86_64", "arm64")
    }


def _aws(folder: Path) -> Iterator[SourcePrice]:
    classes = _aws_classes(folder)
    for row in _read(folder, "aws_prices.csv"):
        name, flags = row["instance_type"], row["flags"].split(";")
        sold = classes.get(name, "")
        dollars = row["on_demand_estimate_2026_h"] or row["on_demand_h"]
        by_hour = "on-demand" in sold and "metal_dedicated_tenancy_price" not in flags
        if dollars and by_hour and row["currency"] == "USD":
            yield SourcePrice("aws", name, row["region"], "on-demand", Decimal(dollars))
        saving = row["spot_estimate_h"] if "advisor_savings_0" not in flags else ""
        spot = saving or row["spot_h"]
        if spot and "spot" in sold and (row["currency"] == "USD" or not saving):
            yield SourcePrice("aws", name, row["region"], "spot", Decimal(spot))


def _aws_levels(folder: Path) -> Iterator[SourcePrice]:
    """Offered and not priced there: what it costs in us-east-1 times the region's level."""
    classes = _aws_classes(folder)
    prices = _read(folder, "aws_prices.csv")
    known = {(r["instance_type"], r["region"]) for r in prices if r["on_demand_h"]}
    home = {
        r["instance_type"]: Decimal(r["on_demand_estimate_2026_h"] or r["on_demand_h"])
        for r in prices
        if r["region"] == "us-east-1"
        and r["on_demand_h"]
        and "metal_dedicated_tenancy_price" not in r["flags"]
        and "on-demand" in classes.get(r["instance_type"], "")
    }
    accelerated = {
        r["instance_type"]
        for r in _read(folder, "aws_instance_types.csv")
        if r["gpu_name"] or r["neuron_name"]
    }
    levels = {
        (r["region"], r["kind"]): Decimal(r["median_ratio"])
        for r in _read(folder, "aws_region_price_levels.csv")
    }
    for row in _read(folder, "aws_offerings.csv"):
        name, region = row["instance_type"], row["region"]
        level = levels.get((region, "accelerated" if name in accelerated else "cpu"))
        if level is not None and name in home and (name, region) not in known:
            yield SourcePrice("aws", name, region, "on-demand", home[name] * level)


def _azure(folder: Path, today: str) -> Iterator[SourcePrice]:
    sizes = {
        row["size"].strip()
        for row in _read(folder, "azure_vm_sizes.csv")
        if not row["retirement_date"] or _day(row["retirement_date"]) > today
    }
    for row in _read(folder, "azure_prices.csv"):
        name, flags = row["size"].strip(), row["flags"].split(";")
        if name not in sizes:
            continue
        listed, spot = Decimal(row["on_demand_usd_h"] or 0), Decimal(row["spot_usd_h"] or 0)
        if listed:
            yield SourcePrice("azure", name, row["region"], "on-demand", listed)
        placeholder = listed and spot >= listed
        if spot and not placeholder and "spot_maybe_windows_meter" not in flags:
            yield SourcePrice("azure", name, row["region"], "spot", spot)


def _day(month_first: str) -> str:
    return datetime.strptime(month_first, "%m/%d/%Y").date().isoformat()


def _gcp(folder: Path) -> Iterator[SourcePrice]:
    regions = {
        row["machine_type"]: row["regions"].split(";")
        for row in _read(folder, "gcp_machine_types.csv")
        if not row["deprecated"]
    }
    for row in _read(folder, "gcp_prices.csv"):
        name, region = row["machine_type"], row["region"]
        if region not in regions.get(name, ()):
            continue
        if row["on_demand_usd_h"] and not GCP_BY_RESERVATION.match(name):
            yield SourcePrice("gcp", name, region, "on-demand", Decimal(row["on_demand_usd_h"]))
        if row["spot_usd_h"] and row["spot_usd_h"] != row["on_demand_usd_h"]:
            yield SourcePrice("gcp", name, region, "spot", Decimal(row["spot_usd_h"]))


def _smaller(folder: Path) -> Iterator[SourcePrice]:
    for row in _read(folder, "neocloud_offers.csv"):
        if row["notes"].startswith("DOUBTFUL") or row["tier"] in ("36mo", "6mo"):
            continue
        together = re.search(r"\(sold as (\d+)\)", row["price_basis"])
        count = int(together[1]) if together else int(row["gpu_count"] or 0)
        times = max(count, 1) if row["price_basis"].startswith("per GPU") else 1
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", row["offer"].strip())
        for term in ("on-demand", "spot"):
            dollars = Decimal(row[f"{term.replace('-', '_')}_usd_h"] or 0) * times
            if dollars:
                region = row["region"] or "global"
                yield SourcePrice(row["provider"], name, region, term, dollars)
