"""How near the estimates are to steps of DeepSeek-V3.2 and GLM-5, whose attention is sparse.

Rows of `tests/fixtures/traces_of_sparse_attention.jsonl` were traced with `measure/trace_rows.py`
(transformers 5.23): tiny models in every precision, kernel and cache, GLM-5 with layers that share
a choice of keys, adapters on latent attention and on the indexer, and both models in their
published widths with two to four blocks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.accuracy.trace_cases import map_trace

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.replay import replayed_reserved_bytes
from sizewright_server.estimation.workload import Layout

FILE = Path(__file__).parents[1] / "fixtures" / "traces_of_sparse_attention.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
PUBLISHED = [row for row in ROWS if row["id"].startswith(("deepseek-v3.2/", "glm-5/"))]


def best_of(row: dict[str, Any]) -> int:
    group = prepare(map_trace(row).workload).group([Layout()])
    return int(gpu_columns(group).allocated_best[0])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_traced_step_has_its_parameters_and_its_allocated_peak(row: dict[str, Any]) -> None:
    assert prepare(map_trace(row).workload).parameter_count == row["parameters"]
    assert best_of(row) == pytest.approx(row["allocated_peak_bytes"], rel=0.006)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["id"])
def test_published_widths_are_within_a_thousandth_and_their_replay_near(
    row: dict[str, Any],
) -> None:
    best = best_of(row)
    reserved = replayed_reserved_bytes(prepare(map_trace(row).workload).group([Layout()]), best)

    assert best == pytest.approx(row["allocated_peak_bytes"], rel=0.0011)
    assert reserved == pytest.approx(row["reserved_peak_bytes"], rel=0.03)
