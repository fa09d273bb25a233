"""How near the estimates are to DPO as trl 1.16 runs it, as traced.

Rows of `tests/fixtures/traces_of_preferences.jsonl` have a reference model, precomputed
log-probabilities or an adapter that is turned off, in 16 bit, under autocast and checkpointed, over
vocabularies of 128,256 and 151,936 words. Traced with `measure/trace_preference.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.accuracy.trace_cases import map_trace
from tests.accuracy.traced_rows import Row, estimated, rows_of

from sizewright_server.estimation.columns import GpuColumns
from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Kernels, LossKernel
from sizewright_server.estimation.workload import Layout, Training, Workload

ROWS = {row["id"]: row for row in rows_of("traces_of_preferences")}


def workload(row: Row, loss: LossKernel | None = None) -> Workload:
    mapped: Any = map_trace(row).workload
    assert isinstance(mapped.run, Training)
    stated: Workload = replace(mapped, run=replace(mapped.run, kernels=Kernels(loss=loss)))
    return stated


def peaks(row: Row, loss: LossKernel | None = None) -> GpuColumns:
    return gpu_columns(prepare(workload(row, loss)).group([Layout()]))


@pytest.mark.parametrize("name", ROWS)
def test_the_peak_of_preference_tuning_is_the_estimate(name: str) -> None:
    traced = estimated(ROWS[name])

    assert traced.parameters == ROWS[name]["parameters"]
    assert traced.best_bytes == pytest.approx(traced.peak_bytes, rel=0.0005)


@pytest.mark.parametrize("name", ROWS)
def test_a_loss_that_is_not_stated_may_be_that_of_a_release_with_all_logits(name: str) -> None:
    unstated, tiled = peaks(ROWS[name]), peaks(ROWS[name], "tiled")

    assert tiled.allocated_best[0] == unstated.allocated_best[0]
    assert tiled.allocated_high[0] < unstated.allocated_high[0]
    assert unstated.allocated_high[0] > 0.98 * peaks(ROWS[name], "native").allocated_best[0]


def test_the_answer_says_that_the_release_is_not_stated() -> None:
    row = ROWS["llama/dpo-lora"]

    def codes(loss: LossKernel | None) -> list[str]:
        made = prepare(workload(row, loss)).estimate(Layout(), 1, device_overhead(None, None))
        return [notice.code for notice in made.notices]

    assert "trl-release-not-stated" in codes(None)
    assert "trl-release-not-stated" not in codes("tiled")
