"""How near the estimates are to steps and prefills of Mamba, Falcon-Mamba, Jamba and Nemotron-H.

The rows were traced under fake CUDA with transformers 5.23: in its own operators as those of
`traces.jsonl`, and with the autograd functions of mamba-ssm 2.3.2 and causal-conv1d 1.7.0, whose
kernels do nothing (`measure/trace_scan_kernels.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.accuracy.trace_cases import map_trace

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.workload import Layout

FILE = Path(__file__).parents[1] / "fixtures" / "traces_of_recurrent_layers.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_traced_step_has_its_parameters_and_its_allocated_peak(row: dict[str, Any]) -> None:
    prepared = prepare(map_trace(row).workload)

    assert prepared.parameter_count == row["parameters"]
    best = int(gpu_columns(prepared.group([Layout()])).allocated_best[0])
    assert best == pytest.approx(row["allocated_peak_bytes"], rel=0.01)


def test_each_model_was_traced_with_and_without_its_kernels() -> None:
    works = [row["workload"] for row in ROWS]
    kinds = {(work["model_config"]["class"], work["recurrence"], work["mode"]) for work in works}

    assert len(kinds) == 2 * 4 * 2


def stepping_one_by_one(row: dict[str, Any]) -> bool:
    work = row["workload"]
    return bool(work.get("lora")) and work.get("opt_impl") == "forloop"


@pytest.mark.parametrize(
    "row", [row for row in ROWS if stepping_one_by_one(row)], ids=lambda row: row["id"]
)
def test_a_step_that_goes_from_tensor_to_tensor_leaves_frozen_experts_out(
    row: dict[str, Any],
) -> None:
    """Whole layers of 512 frozen experts are one tensor each, of gigabytes."""
    overhead = device_overhead(None, None)
    made = prepare(map_trace(row).workload).estimate(Layout(), 1, overhead, replay=True)
    gpu = made.pool("gpu").gpu

    assert gpu is not None
    assert gpu.reserved.best_bytes == pytest.approx(row["reserved_peak_bytes"], rel=0.08)
