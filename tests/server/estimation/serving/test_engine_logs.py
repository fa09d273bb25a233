"""Engines against logs and benchmarks of real runs (copied rows of the ground truth)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.accuracy.mapping import map_case
from tests.accuracy.serving_cases import serving_reading

from sizewright_server.estimation.memory import MemoryEstimate

LOGS = Path(__file__).parents[4] / "tests" / "fixtures" / "serving" / "logs.jsonl"
#: Largest error that is let pass for each metric; most are far below.
ALLOWED = {
    "weights": 0.02,
    "kv_cache": 0.1,
    "kv_tokens": 0.1,
    "kv_blocks": 0.1,
    "activation_peak": 0.1,
    "total_peak": 0.03,
}


def cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOGS.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case["id"]))
def test_an_engine_takes_what_it_was_measured_to_take(case: dict[str, Any]) -> None:
    estimate = map_case(case)
    assert isinstance(estimate, MemoryEstimate)

    for target in case["targets"]:
        if target["metric"] not in ALLOWED:
            continue
        size = serving_reading(target, estimate)
        actual = target.get("bytes", target.get("count"))
        assert size.low_bytes <= size.best_bytes <= size.high_bytes
        assert size.low_bytes <= actual <= 1.01 * size.high_bytes, target["metric"]
        assert size.best_bytes == pytest.approx(actual, rel=ALLOWED[target["metric"]]), target
