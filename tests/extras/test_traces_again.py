"""Traced figures that the suite trusts come out the same when the models run again.

Each row of the fixtures was traced from transformers' own code on fake CUDA tensors; here a few of
them are traced once more, with the tracer as it is now.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
GIVEN = ("id", "category", "workload")
AGAIN = {
    "traces.jsonl": (
        "llama/seqcls",
        "bert/amp-sdpa",
        "mt5/inf-pad",
        "mixtral/bf16-eager",
        "opt/dec",
    ),
    "traces_of_published_sizes.jsonl": ("albert-xxlarge-v2/1-1",),
}


def recorded(file: str) -> dict[str, dict[str, Any]]:
    """The rows of a fixture by their names."""
    lines = (FIXTURES / file).read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


@pytest.mark.parametrize(("file", "name"), [(f, n) for f, names in AGAIN.items() for n in names])
def test_a_row_traced_again_has_the_peaks_that_were_recorded(
    file: str, name: str, tmp_path: Path
) -> None:
    row = recorded(file)[name]
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text(json.dumps({key: row[key] for key in GIVEN}) + "\n")

    subprocess.run(
        [sys.executable, ROOT / "measure" / "trace_rows.py", rows, out], check=True, timeout=600
    )

    traced = json.loads(out.read_text())
    assert traced.get("complaint") is None
    peaks = {target["metric"]: target["bytes"] for target in traced["targets"]}
    assert peaks["allocated_peak"] == row["allocated_peak_bytes"]
    assert peaks["reserved_peak_simulated"] == row["reserved_peak_bytes"]
    assert traced["as_stated"]["n_params"] == row["parameters"]
