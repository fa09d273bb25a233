"""How near the estimates are to steps with Liger's kernels, as traced.

Rows of `tests/fixtures/traces_of_liger.jsonl` are four blocks of published widths, each kernel
alone and all of them, in three precisions, checkpointed and under LoRA; two blocks in those named
"short", of few tokens and 128,256 words. Traced with `measure/trace_liger.py`, Liger-Kernel 0.8.5
and transformers 5.23.
"""

from __future__ import annotations

import pytest
from tests.accuracy.traced_rows import far, measured, miscounted

FILE = "traces_of_liger"
NEAR = 0.0005


def test_a_model_with_ligers_kernels_has_its_parameters_to_the_unit() -> None:
    assert miscounted(FILE) == {}


def test_the_peak_with_ligers_kernels_is_the_estimate() -> None:
    assert far(FILE, NEAR) == {}


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3"])
def test_every_kernel_was_traced_alone_and_with_the_others(family: str) -> None:
    settings = {name.split("/")[1] for name in measured(FILE) if name.startswith(family)}

    assert settings >= {"ce", "flce", "norm", "swiglu", "rope", "all", "all-ckpt", "all-lora"}
