"""How near the estimates are to steps of DeepSeek-V3.2 and GLM-5, whose attention is sparse.

Rows of `tests/fixtures/traces_of_sparse_attention.jsonl` were traced with `measure/trace_rows.py`
(transformers 5.23): tiny models in every precision, kernel and cache, GLM-5 with layers that share
a choice of keys, adapters on latent attention and on the indexer, and both models in their
published widths with two to four blocks.
"""

from __future__ import annotations

import pytest
from tests.accuracy.traced_rows import Row, estimated, replayed_bytes, rows_of

ROWS = rows_of("traces_of_sparse_attention")
PUBLISHED = [row for row in ROWS if row["id"].startswith(("deepseek-v3.2/", "glm-5/"))]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_traced_step_has_its_parameters_and_its_allocated_peak(row: Row) -> None:
    traced = estimated(row)

    assert traced.parameters == row["parameters"]
    assert traced.best_bytes == pytest.approx(traced.peak_bytes, rel=0.006)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["id"])
def test_published_widths_are_within_a_thousandth_and_their_replay_near(
    row: Row,
) -> None:
    traced = estimated(row)

    assert traced.best_bytes == pytest.approx(traced.peak_bytes, rel=0.0011)
    assert replayed_bytes(row) == pytest.approx(row["reserved_peak_bytes"], rel=0.03)
