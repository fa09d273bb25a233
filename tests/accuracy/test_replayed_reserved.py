"""What the replay says the allocator reserves, against replays of traced steps of whole models.

Rows of `tests/fixtures/reserved_traces.jsonl` were traced with `measure/trace_model.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.accuracy.trace_cases import map_trace

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.replay import replayed_reserved_bytes
from sizewright_server.estimation.workload import Layout

FILE = Path(__file__).parents[1] / "fixtures" / "reserved_traces.jsonl"
ROWS = {row["id"]: row for row in map(json.loads, FILE.read_text(encoding="utf-8").splitlines())}


def reserved_error(row: dict[str, Any]) -> float:
    """How far the replay of the estimated step is from the replay of the traced one."""
    group = prepare(map_trace(row).workload).group([Layout()])
    allocated = int(gpu_columns(group).allocated_best[0])
    measured = int(row["reserved_peak_bytes"])
    return replayed_reserved_bytes(group, allocated) / measured - 1


def test_the_table_that_tying_drops_stays_reserved() -> None:
    # Loading needs more than the run: 525 MB of the head's own table are cached afterwards.
    row = ROWS["llama-3.2-1b/infer/batch1-seq512-param_dtypebf16-attnsdpa-decode3"]

    assert abs(reserved_error(row)) < 0.005


def test_images_and_embeddings_that_stay_are_one_block_each() -> None:
    row = ROWS["vit-base-16/infer/batch128-param_dtypefp16-attnsdpa"]

    assert abs(reserved_error(row)) < 0.005


@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_reserved_bytes_of_a_traced_inference_are_the_replay_within_2_percent(
    name: str,
) -> None:
    assert abs(reserved_error(ROWS[name])) < 0.02
