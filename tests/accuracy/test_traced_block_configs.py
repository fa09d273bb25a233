"""How near the estimates are to steps of layers with sizes of their own, some without a half.

The rows were traced under fake CUDA as those of `traces.jsonl`, from Llama of transformers 5.23
with each decoder layer rebuilt from its own attention, MLP and norms as `block_configs` says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.accuracy.trace_cases import map_trace

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.workload import Layout

FILE = Path(__file__).parents[1] / "fixtures" / "traces_of_block_configs.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_traced_step_has_its_parameters_and_its_allocated_peak(row: dict[str, Any]) -> None:
    prepared = prepare(map_trace(row).workload)

    assert prepared.parameter_count == row["parameters"]
    best = int(gpu_columns(prepared.group([Layout()])).allocated_best[0])
    assert best == pytest.approx(row["allocated_peak_bytes"], rel=0.001)
