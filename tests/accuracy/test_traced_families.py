"""How near the estimates are to steps of tiny models that transformers 5.23 ran under fake CUDA.

Each row of `tests/fixtures/traces.jsonl` is one family in one setting, traced with
`measure/trace_rows.py` on a build of torch without CUDA kernels.
"""

from __future__ import annotations

import pytest
from tests.accuracy.traced_rows import far, measured, miscounted

from sizewright_server.estimation.frontend import families

FILE = "traces"
NEAR = 0.03
#: Settings of a family that are known to be further off, and how far.
FURTHER = {
    "albert/amp-sdpa": 0.05,  # which casts of the shared block autocast keeps
    "falcon/dec-eager": 0.05,
    "falcon40/inf-pad": 0.04,
    "llama4/dec": 0.04,
}


def test_the_traced_models_have_their_parameters_to_the_unit() -> None:
    assert miscounted(FILE) == {}


def test_the_allocated_peak_of_a_traced_step_is_the_estimate() -> None:
    assert far(FILE, NEAR, FURTHER) == {}


def test_most_traced_steps_are_estimated_within_1_percent() -> None:
    errors = [abs(traced.error) for traced in measured(FILE).values()]

    assert len(errors) >= 250
    assert sum(error <= 0.01 for error in errors) / len(errors) >= 0.93
    assert sum(error <= 0.001 for error in errors) / len(errors) >= 0.5


@pytest.mark.parametrize("category", ["llm", "moe", "encoder", "encoder-decoder", "vision"])
def test_every_category_of_models_was_traced(category: str) -> None:
    traced = measured(FILE).values()
    rows = [one.row for one in traced if one.row["category"] == category]
    kinds = {row["workload"]["model_config"]["class"] for row in rows}

    assert len(kinds) >= (1 if category == "vision" else 4)
    assert len(kinds) < len(families())
