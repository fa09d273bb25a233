"""Traces the rows of a ground truth file again and prints where the figures differ: ``compare.py
FILE [--only TEXT]``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

COMPARED = ("n_params", "n_trainable", "param_bytes", "buffer_bytes", "peak_phase", "breakdown",
            "optimizer_state_bytes", "grad_bytes", "peak_prefill", "kv_cache_bytes_after_prefill",
            "peak_decode", "kv_cache_bytes_end", "live_end_fwd", "sdpa_kernels")  # fmt: skip


def traced(row: dict[str, Any]) -> dict[str, Any] | str:
    """The figures of a fresh process, or the last line of its complaint."""
    command = [sys.executable, str(Path(__file__).with_name("trace_model.py")), json.dumps(row)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def report(row: dict[str, Any], verbose: bool) -> None:
    """Prints one line for a row, and the differing figures when asked."""
    figures = traced(row)
    if isinstance(figures, str):
        print(f"FAILED   {row['id']}: {figures}", flush=True)
        return
    targets = {t["metric"]: t.get("bytes") for t in row["targets"]}
    words = []
    for metric, key in (
        ("allocated_peak", "peak_bytes"),
        ("reserved_peak_simulated", "reserved_sim_bytes"),
    ):
        if targets.get(metric):
            gap = figures[key] - targets[metric]
            words.append(f"{key} {gap:+d} ({gap / targets[metric]:+.4%})")
    print(f"{', '.join(words)}   {row['id']}", flush=True)
    if verbose:
        for key in COMPARED:
            stated = row["as_stated"].get(key)
            if stated is not None and stated != figures.get(key):
                print(
                    f"    {key}: stated {stated}\n    {' ' * len(key)}  traced {figures.get(key)}",
                    flush=True,
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="rows whose id contains this")
    parser.add_argument("--category", action="append", help="rows of these categories")
    parser.add_argument("--verbose", action="store_true", help="print every figure that differs")
    arguments = parser.parse_args()
    for line in arguments.file.read_text().splitlines():
        row = json.loads(line)
        wanted = arguments.only in row["id"] and not row["workload"].get("dist")
        if wanted and (not arguments.category or row["category"] in arguments.category):
            report(row, arguments.verbose)
    return 0


if __name__ == "__main__":
    sys.exit(main())
