"""Command line of the snapshot builder."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewright_catalog.rows import Collected, OfferRow, TypeRow
from sizewright_catalog.snapshot import FORMAT, text_array, write_snapshot
from sizewright_catalog.snapshot_build import aws, azure, gcp, neoclouds
from sizewright_catalog.values import CPU_ARCHITECTURES, PRICE_KINDS, TERMS

EPOCH_DAY = date(1970, 1, 1)


def main() -> int:
    """Reads the CSV files and writes the snapshot; prints what was kept and dropped."""
    parser = argparse.ArgumentParser(prog="python -m sizewright_catalog.snapshot_build")
    parser.add_argument("--source", type=Path, required=True, help="folder of the CSV files")
    parser.add_argument("--out", type=Path, required=True, help="snapshot file to write")
    parser.add_argument("--today", required=True, help="day of the build, YYYY-MM-DD")
    arguments = parser.parse_args()
    version, described = build(arguments.source, arguments.out, arguments.today)
    count = sum(described["offers_by_provider"].values())
    print(f"{version[:12]}: {count} offers")
    for reason, lost in described["dropped"].items():
        print(f"  dropped {lost:6d}  {reason}")
    return 0


def build(source: Path, out: Path, today: str) -> tuple[str, dict[str, Any]]:
    """Reads the CSV files of `source` and writes a snapshot.

    Returns its version and what it says of itself. The same files and day give the same bytes.
    Raises ValueError or KeyError for a row it cannot read.
    """
    collected = Collected()
    aws.collect(source, collected)
    gcp.collect(source, collected)
    azure.collect(source, collected, today)
    neoclouds.collect(source, collected)
    types, offers = tidy(collected)
    described = metadata(collected, offers, today)
    return write_snapshot(out, columns(types, offers), described), described


def tidy(collected: Collected) -> tuple[list[TypeRow], list[OfferRow]]:
    """Types by name, and offers by type and price, each (type, region, term) once and cheapest."""
    types = sorted(collected.types, key=lambda t: (t.provider, t.type))
    best: dict[tuple[str, str, str, str, str], OfferRow] = {}
    for offer in collected.offers:
        key = (offer.provider, offer.type, offer.region, offer.term, offer.currency)
        held = best.get(key)
        if held is None:
            best[key] = offer
            continue
        collected.dropped["the same offer twice: the dearer one"] += 1
        if offer.per_hour_nanos < held.per_hour_nanos:
            best[key] = offer
    offers = sorted(
        best.values(),
        key=lambda o: (o.provider, o.type, o.per_hour_nanos, o.region, o.term),
    )
    return types, offers


def columns(types: list[TypeRow], offers: list[OfferRow]) -> dict[str, NDArray[Any]]:
    """The arrays of the snapshot."""
    number = {(t.provider, t.type): i for i, t in enumerate(types)}
    names = {
        "providers": sorted({t.provider for t in types}),
        "regions": sorted({o.region for o in offers}),
        "zone_sets": sorted({o.zones for o in offers}),
        "devices": sorted({t.device for t in types if t.device}),
        "reasons": ["", *sorted({t.unsizable_reason for t in types} - {""})],
        "sources": sorted({o.source for o in offers}),
        "currencies": ["USD", *sorted({o.currency for o in offers} - {"USD"})],
    }
    at = {name: {text: i for i, text in enumerate(texts)} for name, texts in names.items()}
    arrays: dict[str, NDArray[Any]] = {
        "type_name": text_array([t.type for t in types]),
        "type_provider": _array([at["providers"][t.provider] for t in types], np.int16),
        "type_vcpus": _array([t.vcpus for t in types], np.int32),
        "type_cpu": _array([CPU_ARCHITECTURES.index(t.cpu_architecture) for t in types], np.int8),
        "type_host_nominal_bytes": _array([t.host_nominal_bytes for t in types], np.int64),
        "type_host_visible_bytes": _array([t.host_visible_bytes for t in types], np.int64),
        "type_host_usable_bytes": _array([t.host_usable_bytes for t in types], np.int64),
        "type_host_measured": _array([t.host_measured for t in types], np.bool_),
        "type_device": _array([at["devices"].get(t.device, -1) for t in types], np.int16),
        "type_device_count": _array([t.device_count for t in types], np.int16),
        "type_slice": _array([t.slice for t in types], np.float64),
        "type_gpu_usable_bytes": _array([t.gpu_usable_bytes for t in types], np.int64),
        "type_reason": _array([at["reasons"][t.unsizable_reason] for t in types], np.int16),
        "offer_type": _array([number[o.provider, o.type] for o in offers], np.int32),
        "offer_region": _array([at["regions"][o.region] for o in offers], np.int16),
        "offer_zones": _array([at["zone_sets"][o.zones] for o in offers], np.int16),
        "offer_term": _array([TERMS.index(o.term) for o in offers], np.int8),
        "offer_nanos": _array([o.per_hour_nanos for o in offers], np.int64),
        "offer_currency": _array([at["currencies"][o.currency] for o in offers], np.int8),
        "offer_kind": _array([PRICE_KINDS.index(o.kind) for o in offers], np.int8),
        "offer_day": _array([_day(o.day) for o in offers], np.int32),
        "offer_source": _array([at["sources"][o.source] for o in offers], np.int16),
    }
    return arrays | {name: text_array(texts) for name, texts in names.items()}


def metadata(collected: Collected, offers: list[OfferRow], today: str) -> dict[str, Any]:
    """What the snapshot says of itself."""
    return {
        "format": FORMAT,
        "build_day": today,
        "offers_by_provider": dict(sorted(Counter(o.provider for o in offers).items())),
        "dropped": dict(sorted(collected.dropped.items())),
    }


def _array(values: list[Any], dtype: type[np.generic]) -> NDArray[Any]:
    made = np.array(values, dtype=dtype)
    if made.tolist() != values:
        raise ValueError(f"a value does not fit {dtype}")
    return made


def _day(text: str) -> int:
    return (date.fromisoformat(text) - EPOCH_DAY).days


if __name__ == "__main__":
    sys.exit(main())
