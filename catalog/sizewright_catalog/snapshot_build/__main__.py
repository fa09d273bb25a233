"""Command line of the snapshot builder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from sizewright_catalog.columns import merge
from sizewright_catalog.rows import Collected
from sizewright_catalog.snapshot import metadata, write_snapshot
from sizewright_catalog.snapshot_build import aws, azure, gcp, neoclouds
from sizewright_catalog.staging import Staging


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
    staging = Staging()
    for made in collected.types:
        staging.add_type(made)
    for offer in collected.offers:
        staging.add_offer(offer)
    arrays, twice = merge([staging.arrays()])
    if twice:
        collected.dropped["the same offer twice: the dearer one"] += twice
    described = metadata(arrays, collected.dropped, today)
    return write_snapshot(out, arrays, described), described


if __name__ == "__main__":
    sys.exit(main())
