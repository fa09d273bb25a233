"""How near the estimates are to steps under every method of PEFT, as traced.

Rows of `tests/fixtures/traces_of_adapters.jsonl` are four blocks of published widths under adapters
in 16 and 32 bit, under autocast, checkpointed, with modules that are trained whole. Traced with
`measure/trace_rows.py`, PEFT 0.21 and transformers 5.23.
"""

from __future__ import annotations

import pytest
from tests.accuracy.traced_rows import far, measured, miscounted

FILE = "traces_of_adapters"
NEAR = 0.002


def test_an_adapted_model_has_its_parameters_to_the_unit() -> None:
    assert miscounted(FILE) == {}


def test_the_allocated_peak_under_an_adapter_is_the_estimate() -> None:
    assert far(FILE, NEAR) == {}


def test_no_traced_peak_is_above_its_upper_bound() -> None:
    above = {
        name
        for name, traced in measured(FILE).items()
        if traced.columns.allocated_high[0] < traced.peak_bytes
    }

    assert above == set()


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
    assert sum(name.split("/")[1].startswith(method) for name in measured(FILE)) >= 4
