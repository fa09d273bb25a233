"""Writes the bundled presets from a folder of collected configurations and their index.

`python measure/make_presets.py FOLDER OUT`: one line per preset, tab-separated: the name, its
aliases joined by `;`, and a JSON object with the configuration and where it is from.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path


def main() -> int:
    """Joins index.csv and the configurations; returns the exit status."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    with (folder / "index.csv").open(encoding="utf-8", newline="") as text:
        rows = sorted(csv.DictReader(text), key=lambda row: row["name"].lower())
    lines = []
    for row in rows:
        config = json.loads((folder / row["file"]).read_text(encoding="utf-8"))
        kept = {k: v for k, v in config.items() if not k.startswith("_") and k != "derived_from"}
        if row["counted_class"].endswith("WithTeacher"):  # no key tells its second classifier
            kept["architectures"] = [row["counted_class"]]
        entry = {
            "config": kept,
            "task": row["task"],
            "parameters": int(row["parameters_exact"] or 0),
            "counted_class": row["counted_class"],
            "verified": row["verified"],
            "source": row["source"],
        }
        text = json.dumps(entry, separators=(",", ":"), sort_keys=True)
        lines.append(f"{row['name']}\t{row['aliases']}\t{text}")
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} presets, {out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
