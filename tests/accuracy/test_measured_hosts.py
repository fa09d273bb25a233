"""How near the host estimates are to jobs that were measured in fresh processes (measure/host)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.accuracy.scoring import score

MEASURED = Path(__file__).parents[1] / "fixtures" / "host" / "measured.jsonl"
CASES: list[dict[str, Any]] = [
    json.loads(line) for line in MEASURED.read_text(encoding="utf-8").splitlines()
]
#: Median and p90 of the absolute error that each library is held to.
LIMITS = {
    "scikit-learn": (0.03, 0.10),
    "xgboost": (0.06, 0.16),
    "lightgbm": (0.05, 0.14),
    "pandas": (0.10, 0.22),
    "pytorch": (0.08, 0.22),
    "tensorflow": (0.09, 0.20),
    "keras": (0.15, 0.40),
}


def scored(cases: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    file = folder / "cases.jsonl"
    file.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    group: dict[str, Any] = score([file])["groups"]["host/host_ram"]
    return group


def test_measured_jobs_keep_within_the_promised_errors(tmp_path: Path) -> None:
    group = scored(CASES, tmp_path)

    assert group["n"] >= 400
    assert group["unsupported"] == 0
    assert group["median_abs_error"] <= 0.04
    assert group["p90_abs_error"] <= 0.13
    assert group["share_within_high"] >= 0.98
    assert group["share_above_low"] >= 0.97
    assert group["median_high_over_actual"] <= 1.25
    assert group["median_low_over_actual"] >= 0.78


@pytest.mark.parametrize("library", LIMITS)
def test_each_library_keeps_its_own(library: str, tmp_path: Path) -> None:
    chosen = [case for case in CASES if case["category"] == library]

    group = scored(chosen, tmp_path)

    most, p90 = LIMITS[library]
    assert group["n"] >= 10
    assert group["median_abs_error"] <= most
    assert group["p90_abs_error"] <= p90
