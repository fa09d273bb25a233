"""transformers and PyTorch: caches and logits by version, and what quantised kernels keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewright_server.estimation.memory import Part, Phase
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.serving.modules import largest_below
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.serving.run import ServingRun, ServingWorkload
from sizewright_server.estimation.workload import Layout, ModelSource

LLAMA = "meta-llama/Llama-2-7b-hf"
TOKEN_BYTES = 32 * 2 * 32 * 128 * 2


def phases(model: str | dict[str, Any] = LLAMA, **run: Any) -> dict[str, Phase]:
    """The phases of a run of a preset or of a configuration."""
    usual = ServingRun(
        "transformers", "bf16", "bf16", "bf16", input_tokens=1024, new_tokens=64, version=(4, 50)
    )
    config = find_preset(model).config if isinstance(model, str) else model
    workload = ServingWorkload(ModelSource(config), replace(usual, **run))
    estimate = PreparedServing(workload).estimate(Layout(), 1, device_overhead("nvidia", "8.0"))
    return {phase.name: phase for phase in estimate.pool("gpu").phases}


def parts(
    model: str | dict[str, Any] = LLAMA, phase: str = "prefill", **run: Any
) -> dict[str, int]:
    """Best bytes of the parts of a phase."""
    return {part.name: part.size.best_bytes for part in phases(model, **run)[phase].parts}


def test_a_dynamic_cache_grows_to_the_last_token() -> None:
    assert parts()["kv-cache"] == 1024 * TOKEN_BYTES
    assert parts(phase="decode")["kv-cache"] == (1024 + 64) * TOKEN_BYTES


def test_a_static_cache_is_there_from_the_first_token() -> None:
    assert parts(cache="static")["kv-cache"] == (1024 + 64) * TOKEN_BYTES
    assert parts(cache="static", cache_tokens=4096)["kv-cache"] == 4096 * TOKEN_BYTES
    assert "concatenation" not in parts(phase="decode", cache="static")


def test_a_quantised_cache_keeps_what_it_writes_as_it_is_for_127_tokens() -> None:
    run: dict[str, Any] = {"cache": "quantised", "kv_type": "int4", "new_tokens": 1000}

    # 0.5625 B an element: 4 bits, and a scale and a zero in bf16 for 64 of them, as measured.
    each = TOKEN_BYTES * 0.5625 / 2
    assert parts(**run)["kv-cache"] == 1024 * each
    assert parts(phase="decode", **run)["kv-cache"] == (2024 - 127) * each + 127 * TOKEN_BYTES


def test_a_quantised_cache_is_made_whole_again_for_each_layers_attention() -> None:
    made = parts(phase="decode", cache="quantised", kv_type="int4")

    # A layer's keys and values, and both again with the latest token behind them.
    assert made["concatenation"] == 2 * (1024 + 64) * TOKEN_BYTES // 32


@pytest.mark.parametrize(
    ("version", "rows", "itemsize"), [((4, 38), 1024, 2 + 4), ((4, 51), 1, 2 + 4)]
)
def test_older_versions_make_logits_of_the_whole_prompt(
    version: tuple[int, ...], rows: int, itemsize: int
) -> None:
    assert parts(version=version)["logits"] == rows * 32_000 * itemsize


QWEN25 = {
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
}


#: Live bytes beside the weights in traces of transformers 4.46.3 with flash attention: Qwen2.5-1.5B
#: after a prompt of so many tokens, and in the last of 2,048 further steps.
@pytest.mark.parametrize(
    ("tokens", "prefill", "decode"),
    [(6144, 585_260_000, 285_410_000), (30_720, 2_926_300_000, 1_141_600_000)],
)
def test_a_prompt_and_a_last_step_take_what_traces_of_446_show(
    tokens: int, prefill: int, decode: int
) -> None:
    shared = {"attention": "flash-attention-2", "new_tokens": 2048, "version": (4, 46, 3)}

    def moving(phase: str) -> int:
        made = parts(QWEN25, phase, input_tokens=tokens, **shared)
        live = ("kv-cache", "activations", "concatenation", "logits")
        return sum(made.get(name, 0) for name in live)

    assert moving("prefill") == pytest.approx(prefill, rel=0.01)
    assert moving("decode") == pytest.approx(decode, rel=0.01)


@pytest.mark.parametrize(
    ("version", "kernel", "repeats"),
    [
        ((4, 47), "flash-attention-2", True),
        ((4, 48), "flash-attention-2", False),
        ((4, 53), "sdpa", True),
        ((4, 54), "sdpa", False),
    ],
)
def test_key_heads_are_repeated_by_the_versions_that_repeat_them(
    version: tuple[int, ...], kernel: str, repeats: bool
) -> None:
    made = parts(QWEN25, "decode", version=version, attention=kernel)

    one_key = (1024 + 64) * 2 * 128 * 2
    assert made["concatenation"] == (12 * one_key if repeats else one_key)


def test_sources_that_disagree_on_a_prompt_of_451_bound_what_is_said() -> None:
    def activations(version: tuple[int, ...]) -> Part:
        phase = phases(QWEN25, input_tokens=30_720, version=version)["prefill"]
        return next(p for p in phase.parts if p.name == "activations")

    before, disputed, after = activations((4, 50)), activations((4, 51, 3)), activations((4, 52))
    assert before.size == after.size
    assert disputed.size.low_bytes == 0
    assert disputed.size.best_bytes == before.size.best_bytes // 2
    assert disputed.size.high_bytes == before.size.high_bytes
    assert "two disagree" in disputed.numbers


def test_int8_kernels_keep_their_int32_results() -> None:
    made = parts(weight_type="bnb-int8")

    assert made["kernel-buffers"] == 1024 * 11_008 * 5


def test_nf4_dequantises_a_matrix_for_a_prompt_and_none_for_one_token() -> None:
    assert parts(weight_type="bnb-nf4")["kernel-buffers"] == 4096 * 11_008 * 2
    assert "kernel-buffers" not in parts(phase="decode", weight_type="bnb-nf4")


def test_gptq_keeps_its_dequantised_matrix_all_the_time() -> None:
    assert parts(phase="decode", weight_type="gptq-int4")["kernel-buffers"] == 4096 * 11_008 * 2


def test_windows_are_dropped_only_by_versions_that_drop_them() -> None:
    run: dict[str, Any] = {"input_tokens": 8192, "model": "google/gemma-3-1b-it"}
    old, new = parts(version=(4, 50), **run), parts(version=(4, 57), **run)

    assert old["kv-cache"] > 3 * new["kv-cache"]


def test_latents_are_cached_expanded() -> None:
    made = parts("deepseek-ai/DeepSeek-V2-Lite", input_tokens=100)

    assert made["kv-cache"] == 100 * 27 * 16 * (128 + 64 + 128) * 2


@settings(max_examples=200, deadline=None)
@given(
    slopes=st.lists(st.integers(1, 10**7), min_size=1, max_size=3),
    fixed=st.integers(0, 10**9),
    room=st.integers(0, 10**12),
)
def test_the_largest_that_fits_fits_and_one_more_does_not(
    slopes: list[int], fixed: int, room: int
) -> None:
    def size(n: int) -> int:
        return fixed + max(slope * max(0, n - 100 * i) for i, slope in enumerate(slopes))

    most = 2**24
    found = largest_below(size, fixed + room, most)

    assert found == 0 or size(found) <= fixed + room
    assert found == most or size(found + 1) > fixed + room
