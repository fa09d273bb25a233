"""Models with an encoder and a decoder: caches of both, and who serves them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.serving.run import ServingRun, ServingWorkload
from sizewright_server.estimation.workload import Layout, ModelSource


def estimate(preset: str, engine: str, **run: Any) -> MemoryEstimate:
    usual = ServingRun(engine, "bf16", "bf16", "bf16", batch=4, input_tokens=512)  # type: ignore[arg-type]
    workload = ServingWorkload(ModelSource(find_preset(preset).config), replace(usual, **run))
    layout = run.get("layout") or Layout()
    return PreparedServing(workload).estimate(layout, layout.gpus, device_overhead("nvidia", "9.0"))


def parts(found: MemoryEstimate, phase: str) -> dict[str, int]:
    made = next(p for p in found.pool("gpu").phases if p.name == phase)
    return {part.name: part.size.best_bytes for part in made.parts}


def test_t5_caches_the_prompt_for_cross_attention_and_what_it_writes() -> None:
    found = estimate("google/t5-v1_1-large", "transformers", weight_type="bnb-int8", new_tokens=128)

    # 24 layers x keys and values x 16 heads of 64 x 2 B, for each of four sequences.
    each = 24 * 2 * 16 * 64 * 2 * 4
    assert parts(found, "prefill")["kv-cache"] == each * (512 + 1)
    assert parts(found, "decode")["kv-cache"] == each * (512 + 129)
    assert parts(found, "decode")["concatenation"] == 129 * 16 * 64 * 2 * 4
    assert parts(found, "prefill")["logits"] == 4 * 32_128 * (2 + 4)


def test_quantised_layers_of_an_encoder_are_quantised_too() -> None:
    whole = parts(estimate("google/t5-v1_1-large", "transformers"), "prefill")["weights"]
    small = parts(
        estimate("google/t5-v1_1-large", "transformers", weight_type="bnb-int8"), "prefill"
    )["weights"]

    # All but two vocabularies of 32,128 x 1,024 take half, and a scale a row.
    layers = whole - 2 * 32_128 * 1024 * 2
    assert small == pytest.approx(whole - layers / 2, rel=0.005)


def test_whisper_in_vllm_pins_1500_tokens_of_sound_beside_its_text() -> None:
    found = estimate("openai/whisper-large-v3", "vllm", input_tokens=4, new_tokens=444)

    seen = found.serving
    assert seen is not None
    assert "32 + 32 layers" in found.architecture
    # 32 layers x keys and values x 20 heads of 64 x 2 B, in blocks of 16 tokens; text and sound are
    # two groups: 28 blocks of 448 tokens, and 94 of 1,500.
    assert seen.block_bytes == 32 * 2 * 20 * 64 * 2 * 16
    assert seen.needed_cache.best_bytes == 4 * (28 + 94) * seen.block_bytes
    assert parts(found, "serving")["weights"] == pytest.approx(1_543_490_560 * 2, rel=0.005)


@pytest.mark.parametrize(
    ("preset", "engine", "text"),
    [
        ("google/t5-v1_1-large", "vllm", "vllm serves no t5"),
        ("facebook/bart-base", "vllm", "BART is a plugin's"),
        ("openai/whisper-tiny", "sglang", "sglang's encoder-decoder models are not known"),
    ],
)
def test_an_engine_that_does_not_serve_them_says_so(preset: str, engine: str, text: str) -> None:
    with pytest.raises(UnsupportedWorkload, match=text):
        estimate(preset, engine)
