"""An unknown model_type: refused with what could be given, or a generic block when asked."""

from __future__ import annotations

from typing import Any

import pytest

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.frontend import families
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.workload import Layout, ModelSource, Optimizer, Training, Workload

LLAMA = find_preset("meta-llama/Meta-Llama-3-8B").config
UNKNOWN = {**LLAMA, "model_type": "llama9"}


def workload(config: dict[str, Any], *, generic: bool = False) -> Workload:
    return Workload(
        ModelSource(config, generic=generic), Training("bf16", Optimizer("adamw"), 1, 512)
    )


def estimate(of: Workload) -> MemoryEstimate:
    return prepare(of).estimate(Layout(), 1, device_overhead(None, None))


def refusal(config: dict[str, Any], *, generic: bool = False) -> str:
    with pytest.raises(UnsupportedWorkload) as caught:
        prepare(workload(config, generic=generic))
    return str(caught.value)


def test_an_unknown_model_type_is_refused_naming_near_ones_and_the_way_out() -> None:
    words = refusal(UNKNOWN)

    assert "model_type 'llama9' is not built yet; near: llama" in words
    assert "model.generic_block: true" in words
    assert all(family in words for family in families())


def test_a_wrapper_of_a_known_language_model_says_what_part_can_be_given() -> None:
    assert "its text_config alone" in refusal({"model_type": "new-vl", "text_config": LLAMA})


def test_a_pipeline_of_several_models_is_refused_by_the_names_of_its_parts() -> None:
    words = refusal(find_preset("stabilityai/stable-diffusion-xl-base-1.0").config)

    assert "pipeline of several models (text_encoder, text_encoder_2, unet, vae)" in words


def test_a_configuration_without_a_model_type_is_told_so() -> None:
    assert "states no model_type" in refusal({"hidden_size": 64})


def test_a_generic_block_is_taken_when_asked_with_a_notice_and_a_wide_interval() -> None:
    made, known = estimate(workload(UNKNOWN, generic=True)), estimate(workload(LLAMA))

    assert [n.code for n in made.notices if n.code == "generic-block"] == ["generic-block"]
    assert "generic-block" not in [n.code for n in known.notices]
    wide, near = made.pool("gpu").gpu, known.pool("gpu").gpu
    assert wide is not None
    assert near is not None
    assert wide.allocated.best_bytes == pytest.approx(near.allocated.best_bytes, rel=0.02)
    assert wide.allocated.high_bytes >= 1.55 * wide.allocated.best_bytes
    assert wide.allocated.low_bytes <= 0.75 * wide.allocated.best_bytes
    assert near.allocated.high_bytes <= 1.1 * near.allocated.best_bytes


def test_a_generic_block_of_a_known_model_is_that_model() -> None:
    asked = prepare(workload(LLAMA, generic=True))

    assert not asked.model.generic
    assert asked.parameter_count == prepare(workload(LLAMA)).parameter_count


def test_a_generic_block_needs_the_sizes_of_one() -> None:
    words = refusal({"model_type": "llama9", "hidden_size": 64}, generic=True)

    assert "num_hidden_layers" in words


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"decoder_layers": -3, "decoder_ffn_dim": "wide", "encoder_layers": 1.5},
            ["encoder_layers must be", "decoder_layers must be", "decoder_ffn_dim must be"],
        ),
        ({"decoder_attention_heads": 7}, ["is not a multiple of decoder_attention_heads 7"]),
    ],
)
def test_wrong_sizes_of_a_decoder_are_named_with_the_encoders(
    changes: dict[str, Any], said: list[str]
) -> None:
    words = refusal({**find_preset("facebook/bart-base").config, **changes})

    assert all(part in words for part in said), words
