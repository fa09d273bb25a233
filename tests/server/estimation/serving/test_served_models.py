"""Tensors and caches of public models, against counts that were made from their real classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sizewright_server.estimation.presets import Preset, find_preset, preset_names
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.serving.reading import read_served_model

LANGUAGE = (
    *("text-generation", "image-text-to-text"),
    *("text2text-generation", "automatic-speech-recognition"),
)
FIXTURES = Path(__file__).parents[4] / "tests" / "fixtures" / "serving"
#: Has no class in transformers that could count it; test_block_configs.py holds its count.
NOT_COUNTED = "nemotron-nas"


def language_models() -> list[Preset]:
    presets = [find_preset(name) for name in preset_names()]
    return [
        preset
        for preset in presets
        if preset.task in LANGUAGE and preset.config["model_type"] != NOT_COUNTED
    ]


@pytest.mark.parametrize("preset", language_models(), ids=lambda preset: preset.name)
def test_a_public_model_has_as_many_parameters_as_its_real_class(preset: Preset) -> None:
    assert read_served_model(preset.config, "model").parameters == preset.parameters


def class_defaults() -> list[dict[str, Any]]:
    """Configurations of transformers 5.23 and the parameters of their class on the meta device."""
    lines = (FIXTURES / "class_defaults.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("case", class_defaults(), ids=lambda case: case["config"]["model_type"])
def test_a_family_without_a_preset_has_as_many_parameters_too(case: dict[str, Any]) -> None:
    assert read_served_model(case["config"], "model").parameters == case["parameters"]


def test_gemma_3_has_five_windows_to_each_full_layer() -> None:
    model = read_served_model(find_preset("google/gemma-3-27b-it").config, "model")

    kinds = [cache.kind for cache in model.caches]
    assert kinds.count("full") == 10
    assert kinds.count("sliding") == 52
    assert kinds[:6] == ["sliding"] * 5 + ["full"]


def test_qwen_3_5_keeps_states_in_three_layers_of_four() -> None:
    model = read_served_model(find_preset("Qwen/Qwen3.5-27B").config, "model")

    state = next(cache for cache in model.caches if cache.kind == "state")
    assert [cache.kind for cache in model.caches].count("full") == 16
    assert state.conv_elements == 10_240 * 3
    assert state.state_elements == 48 * 128 * 128


def test_deepseek_caches_one_latent_of_576_for_all_heads() -> None:
    model = read_served_model(find_preset("deepseek-ai/DeepSeek-V3").config, "model")

    assert {cache.kind for cache in model.caches} == {"latent"}
    assert model.caches[0].key_dim == 576


def test_an_unknown_family_is_refused_by_name_with_near_ones() -> None:
    with pytest.raises(UnsupportedWorkload) as refused:
        read_served_model({"model_type": "gemma5"}, "workload.model.hf_config")

    assert "'gemma5' cannot be served yet; near: gemma" in str(refused.value)


def test_every_missing_or_wrong_size_is_named_at_once() -> None:
    config = {
        "model_type": "llama",
        "hidden_size": "wide",
        "num_attention_heads": 32,
        "vocab_size": -1,
    }
    with pytest.raises(UnsupportedWorkload) as refused:
        read_served_model(config, "workload.model.hf_config")

    text = str(refused.value)
    assert "hidden_size must be a whole number" in text
    assert "num_hidden_layers is missing" in text
    assert "vocab_size must be from 0" in text


def test_nemotron_h_is_read_from_names_of_its_layers_as_from_letters() -> None:
    config = find_preset("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16").config
    words = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}
    named = [words[letter] for letter in config["hybrid_override_pattern"]]
    other = {key: value for key, value in config.items() if key != "hybrid_override_pattern"}

    assert read_served_model(other | {"layers_block_type": named}, "model").parameters == (
        31_577_937_344
    )
