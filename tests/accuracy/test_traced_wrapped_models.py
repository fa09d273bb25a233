"""How near the estimates are to text-only steps of whole vision-language checkpoints, as traced.

Rows of `tests/fixtures/traces_of_wrapped_models.jsonl` have text models of published widths cut to
a few blocks beside small towers: three precisions, padded, eager, checkpointed, under LoRA. Traced
with `measure/trace_rows.py`, transformers 5.23.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.accuracy.trace_cases import map_trace

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.frontend import model_type_of
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.workload import Layout
from sizewright_server.estimation.wrappers import wrappers

FILE = Path(__file__).parents[1] / "fixtures" / "traces_of_wrapped_models.jsonl"
NEAR = 0.001


@cache
def measured() -> dict[str, tuple[dict[str, Any], int, float]]:
    """By row: the trace, the parameters counted, and the error of the allocated peak."""
    made = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prepared = prepare(map_trace(row).workload)
        best = int(gpu_columns(prepared.group([Layout()])).allocated_best[0])
        made[row["id"]] = (row, prepared.parameter_count, best / row["allocated_peak_bytes"] - 1)
    return made


def test_a_whole_checkpoint_has_its_parameters_to_the_unit() -> None:
    wrong = {
        name: (count, row["parameters"])
        for name, (row, count, _) in measured().items()
        if count != row["parameters"]
    }

    assert wrong == {}


def test_the_peak_of_a_text_only_step_is_the_estimate() -> None:
    far = {name: round(e, 4) for name, (_, _, e) in measured().items() if abs(e) > NEAR}

    assert far == {}


def test_every_wrapper_but_an_older_twin_was_traced() -> None:
    traced = {model_type_of(row["workload"]["model_config"]) for row, _, _ in measured().values()}

    # Qwen2-VL's text model is Qwen2.5-VL's.
    assert set(wrappers()) - traced == {"qwen2_vl"}
