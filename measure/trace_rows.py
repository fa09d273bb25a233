"""Traces every row of a file in one process: ``trace_rows.py ROWS.jsonl OUT.jsonl [--only TEXT]``.

A row that fails is written with its complaint instead of its targets, so that what cannot run is
known as well.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# isort: split
import cuda_guard  # noqa: F401  (before torch)

# isort: split
import torch

from trace_model import trace_workload

KEPT = ("n_params", "peak_phase", "sdpa_kernels")


def traced(row: dict[str, Any]) -> dict[str, Any]:
    """The row with what was measured."""
    try:
        # The category says which head the model has, where it has several.
        figures, _ = trace_workload({"category": row.get("category")} | row["workload"])
    except Exception as error:  # whatever the model's own code raises is the answer
        return row | {"complaint": f"{type(error).__name__}: {error}"[:300]}
    finally:
        gc.collect()
    targets = [
        target("allocated_peak", "allocated", figures["peak_bytes"]),
        target("reserved_peak_simulated", "reserved", figures["reserved_sim_bytes"]),
    ]
    return row | {"targets": targets, "as_stated": {key: figures[key] for key in KEPT}}


def target(metric: str, reading: str, size_bytes: int) -> dict[str, Any]:
    """One figure to predict."""
    return {
        "metric": metric,
        "bytes": size_bytes,
        "reading": reading,
        "scope": "single_gpu",
        "unit_known": True,
        "scored": True,
    }


def rows_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that scripts over files of rows share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("rows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="rows whose id contains this")
    return parser


def asked_rows(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of the file that are asked for."""
    for line in asked.rows.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if asked.only in row["id"]:
            yield row


def in_one_line(done: dict[str, Any]) -> str:
    """A traced row as a line of a file."""
    return json.dumps(done, separators=(",", ":")) + "\n"


def trace_all(asked: argparse.Namespace) -> int:
    """Traces the rows that are asked for in this process."""
    torch.manual_seed(0)
    with asked.out.open("w", encoding="utf-8") as out:
        for row in asked_rows(asked):
            done = traced(row)
            out.write(in_one_line(done))
            out.flush()
            if "complaint" in done:
                print(row["id"], done["complaint"], file=sys.stderr)
    return 0


def trace_with(install: Callable[[Path], None], description: str | None) -> int:
    """Traces rows with packages of kernels that `install` makes importable."""
    parser = rows_parser(description)
    parser.add_argument("--packages", type=Path, required=True)
    asked = parser.parse_args()
    install(asked.packages)
    return trace_all(asked)


if __name__ == "__main__":
    sys.exit(trace_all(rows_parser(__doc__).parse_args()))
