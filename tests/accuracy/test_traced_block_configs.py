"""How near the estimates are to steps of layers with sizes of their own, some without a half.

The rows were traced with `measure/trace_block_configs.py`: Llama of transformers 5.23 whose decoder
layers have the attention, MLP and norms that `block_configs` says.
"""

from __future__ import annotations

import pytest
from tests.accuracy.traced_rows import Row, estimated, rows_of

ROWS = rows_of("traces_of_block_configs")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_traced_step_has_its_parameters_and_its_allocated_peak(row: Row) -> None:
    traced = estimated(row)

    assert traced.parameters == row["parameters"]
    assert traced.best_bytes == pytest.approx(traced.peak_bytes, rel=0.001)
