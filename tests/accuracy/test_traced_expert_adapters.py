"""How near the estimates are to LoRA over every layer of mixtures of experts, as traced.

Rows of `tests/fixtures/traces_of_adapted_experts.jsonl` are tiny models of each family under PEFT
0.21 on transformers 5.23, which takes gate_proj, up_proj and down_proj for the experts' fused
weights, and with all-linear the router too. Traced with `measure/trace_rows.py`.
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

FILE = Path(__file__).parents[1] / "fixtures" / "traces_of_adapted_experts.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
NEAR = 0.003
#: Rows that are known to be further off, and how far.
FURTHER = {
    "granitemoe/lora-all-ckpt": 0.013,
    "v32/lora-all": 0.005,  # embeddings that the model's frame has, of a model of four blocks
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_traced_step_has_its_parameters_and_its_allocated_peak(row: dict[str, Any]) -> None:
    prepared = prepare(map_trace(row).workload)

    assert prepared.parameter_count == row["parameters"]
    best = int(gpu_columns(prepared.group([Layout()])).allocated_best[0])
    near = FURTHER.get(row["id"], NEAR)
    assert best == pytest.approx(row["allocated_peak_bytes"], rel=near)


def test_every_family_whose_experts_are_adapted_was_traced() -> None:
    kinds = {row["workload"]["model_config"]["class"] for row in ROWS}

    assert len(kinds) >= 11
