"""How near the estimates are to steps with Liger's kernels, as traced.

Rows of `tests/fixtures/traces_of_liger.jsonl` are four blocks of published widths, each kernel
alone and all of them, in three precisions, checkpointed and under LoRA. Traced with
`measure/trace_liger.py`, Liger-Kernel 0.8.5 and transformers 5.23.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.accuracy.trace_cases import map_trace

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.workload import Layout

FILE = Path(__file__).parents[1] / "fixtures" / "traces_of_liger.jsonl"
NEAR = 0.001


@cache
def measured() -> dict[str, tuple[dict[str, Any], float]]:
    """By row: the trace, and the error of the allocated peak."""
    made = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prepared = prepare(map_trace(row).workload)
        best = int(gpu_columns(prepared.group([Layout()])).allocated_best[0])
        made[row["id"]] = (row, best / row["allocated_peak_bytes"] - 1)
    return made


def test_the_peak_with_ligers_kernels_is_the_estimate() -> None:
    far = {name: round(error, 4) for name, (_, error) in measured().items() if abs(error) > NEAR}

    assert far == {}


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3"])
def test_every_kernel_was_traced_alone_and_with_the_others(family: str) -> None:
    settings = {name.split("/")[1] for name in measured() if name.startswith(family)}

    assert settings >= {"ce", "flce", "norm", "swiglu", "rope", "all", "all-ckpt", "all-lora"}
