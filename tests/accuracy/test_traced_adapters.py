"""How near the estimates are to steps under every method of PEFT, as traced.

Rows of `tests/fixtures/traces_of_adapters.jsonl` are four blocks of published widths under adapters
in 16 and 32 bit, under autocast, checkpointed, with modules that are trained whole. Traced with
`measure/trace_rows.py`, PEFT 0.21 and transformers 5.23.
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

FILE = Path(__file__).parents[1] / "fixtures" / "traces_of_adapters.jsonl"
NEAR = 0.002


@cache
def measured() -> dict[str, tuple[dict[str, Any], int, float, float]]:
    """By row: the trace, the parameters counted, the error, and the upper bound over the peak."""
    made = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prepared = prepare(map_trace(row).workload)
        columns = gpu_columns(prepared.group([Layout()]))
        peak = row["allocated_peak_bytes"]
        error, high = (
            int(columns.allocated_best[0]) / peak - 1,
            int(columns.allocated_high[0]) / peak,
        )
        made[row["id"]] = (row, prepared.parameter_count, error, high)
    return made


def test_an_adapted_model_has_its_parameters_to_the_unit() -> None:
    wrong = {
        name: (count, row["parameters"])
        for name, (row, count, _, _) in measured().items()
        if count != row["parameters"]
    }

    assert wrong == {}


def test_the_allocated_peak_under_an_adapter_is_the_estimate() -> None:
    far = {
        name: round(error, 4) for name, (_, _, error, _) in measured().items() if abs(error) > NEAR
    }

    assert far == {}


def test_no_traced_peak_is_above_its_upper_bound() -> None:
    assert {name for name, (*_, high) in measured().items() if high < 1} == set()


@pytest.mark.parametrize(
    "method",
    [
        "lora",
        "dora",
        "adalora",
        "vera",
        "loha",
        "lokr",
        "boft",
        "oft",
        "ia3",
        "ln_tuning",
        "prompt_tuning",
        "prefix_tuning",
        "p_tuning",
        "save",
    ],
)
def test_every_method_was_traced_in_several_precisions(method: str) -> None:
    assert sum(name.split("/")[1].startswith(method) for name in measured()) >= 4
