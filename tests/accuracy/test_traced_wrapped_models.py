"""How near the estimates are to text-only steps of whole vision-language checkpoints, as traced.

Rows of `tests/fixtures/traces_of_wrapped_models.jsonl` have text models of published widths cut to
a few blocks beside small towers: three precisions, padded, eager, checkpointed, under LoRA. Traced
with `measure/trace_rows.py`, transformers 5.23.
"""

from __future__ import annotations

from tests.accuracy.traced_rows import far, measured, miscounted

from sizewright_server.estimation.frontend import model_type_of
from sizewright_server.estimation.wrappers import wrappers

FILE = "traces_of_wrapped_models"
NEAR = 0.001


def test_a_whole_checkpoint_has_its_parameters_to_the_unit() -> None:
    assert miscounted(FILE) == {}


def test_the_peak_of_a_text_only_step_is_the_estimate() -> None:
    assert far(FILE, NEAR) == {}


def test_every_wrapper_but_an_older_twin_was_traced() -> None:
    configs = [traced.row["workload"]["model_config"] for traced in measured(FILE).values()]

    # Qwen2-VL's text model is Qwen2.5-VL's.
    assert set(wrappers()) - {model_type_of(config) for config in configs} == {"qwen2_vl"}
