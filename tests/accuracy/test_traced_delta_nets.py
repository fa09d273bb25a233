"""How near the estimates are to steps of Qwen3-Next and Qwen3.5, most of whose layers are gated
delta nets.

Rows of `tests/fixtures/traces_of_delta_nets.jsonl` were traced with `measure/trace_rows.py`
(transformers 5.23) where neither flash-linear-attention nor causal-conv1d is installed: tiny models
in every precision and kernel, with lengths that fill their chunks of 64 tokens and that do not.
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

FILE = Path(__file__).parents[1] / "fixtures" / "traces_of_delta_nets.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
NEAR = 0.001
#: What is known to be further off, and how far.
FURTHER = {
    # A text of one chunk saves no queries and keys beside its state.
    "short": 0.042,
    # Embeddings have a name while frozen layers run before the first adapter.
    "qwen3next/lora": 0.018,
}


def near(row: dict[str, Any]) -> float:
    name, setting = row["id"], row["id"].rsplit("/", 1)[-1]
    return FURTHER.get(name, FURTHER.get(setting, NEAR))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_traced_step_has_its_parameters_and_its_allocated_peak(row: dict[str, Any]) -> None:
    made = prepare(map_trace(row).workload)

    assert made.parameter_count == row["parameters"]
    best = int(gpu_columns(made.group([Layout()])).allocated_best[0])
    assert best == pytest.approx(row["allocated_peak_bytes"], rel=near(row))
