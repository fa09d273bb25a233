"""How near the estimates are to steps and prefills of Mamba, Falcon-Mamba, Jamba and Nemotron-H.

The rows were traced under fake CUDA with transformers 5.23: in its own operators as those of
`traces.jsonl`, and with the autograd functions of mamba-ssm 2.3.2 and causal-conv1d 1.7.0, whose
kernels do nothing (`measure/trace_scan_kernels.py`).
"""

from __future__ import annotations

import pytest
from tests.accuracy.trace_cases import map_trace
from tests.accuracy.traced_rows import Row, estimated, rows_of

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.workload import Layout

ROWS = rows_of("traces_of_recurrent_layers")
#: By the way that recurrent layers run.
NEAR = {"eager": 0.0045, "fused": 0.0005}
#: Rows with kernels that are known to be further off, and how far, by how their names begin.
FURTHER = {
    "falcon-mamba/": 0.005,
    "jamba/inf-": 0.0045,
    "mamba/one": 0.003,
    "nemotron-h/bf16-ckpt": 0.007,
    "nemotron-h/lora": 0.0045,
    "nemotron-3-super/2-": 0.0008,
}


def near(row: Row) -> float:
    way = NEAR[row["workload"]["recurrence"]]
    known = (far for name, far in FURTHER.items() if row["id"].startswith(name))
    return max(way, *known, 0.0)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_traced_step_has_its_parameters_and_its_allocated_peak(row: Row) -> None:
    traced = estimated(row)

    assert traced.parameters == row["parameters"]
    assert traced.best_bytes == pytest.approx(traced.peak_bytes, rel=near(row))


def test_each_model_was_traced_with_and_without_its_kernels() -> None:
    works = [row["workload"] for row in ROWS]
    kinds = {(work["model_config"]["class"], work["recurrence"], work["mode"]) for work in works}

    assert len(kinds) == 2 * 4 * 2


def stepping_one_by_one(row: Row) -> bool:
    work = row["workload"]
    return bool(work.get("lora")) and work.get("opt_impl") == "forloop"


@pytest.mark.parametrize(
    "row", [row for row in ROWS if stepping_one_by_one(row)], ids=lambda row: row["id"]
)
def test_a_step_that_goes_from_tensor_to_tensor_leaves_frozen_experts_out(
    row: Row,
) -> None:
    """Whole layers of 512 frozen experts are one tensor each, of gigabytes."""
    overhead = device_overhead(None, None)
    made = prepare(map_trace(row).workload).estimate(Layout(), 1, overhead, replay=True)
    gpu = made.pool("gpu").gpu

    assert gpu is not None
    assert gpu.reserved.best_bytes == pytest.approx(row["reserved_peak_bytes"], rel=0.08)
