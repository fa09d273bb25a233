"""Settings of sharding libraries: what each changes, by a sum from the library's own source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sizewright_server.estimation.adapter_targets import adapter_targets
from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.layout import FsdpSettings, MegatronSettings, ZeroBuffers
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Adapter, Kernels
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

MODELS = {
    name: find_preset(name).config
    for name in ("meta-llama/Llama-3.2-1B", "meta-llama/Meta-Llama-3-8B", "Qwen/Qwen2.5-14B")
}
LLAMA = MODELS["meta-llama/Meta-Llama-3-8B"]
ZERO3 = Layout(dp=8, zero=3, sharding="deepspeed")
FSDP1 = Layout(dp=8, zero=3, sharding="fsdp1")
MEGATRON = Layout(dp=8, zero=1, sharding="megatron")


def workload(layout: Layout, config: dict[str, Any], **changes: Any) -> Workload:
    run = Training("bf16-mixed", Optimizer("adamw", "fused"), 1, 4096, layout=layout)
    return Workload(ModelSource(config), replace(run, **changes))


def estimate(layout: Layout, config: dict[str, Any] = LLAMA, **changes: Any) -> MemoryEstimate:
    prepared = prepare(workload(layout, config, **changes))
    return prepared.estimate(layout, 8, device_overhead("nvidia", "9.0"))


def refusals(layout: Layout, config: dict[str, Any] = LLAMA, **changes: Any) -> dict[str, str]:
    with pytest.raises(UnsupportedWorkload) as caught:
        prepare(workload(layout, config, **changes))
    prefix = "workload.training.parallelism.explicit."
    return {v.field.removeprefix(prefix): v.description for v in caught.value.violations}


def part(layout: Layout, phase: str, name: str, config: dict[str, Any], **changes: Any) -> int:
    pool = estimate(layout, config, **changes).pool("gpu")
    found = next(one for one in pool.phases if one.name == phase)
    return sum(p.size.best_bytes for p in found.parts if p.name == name)


def notices(layout: Layout) -> list[str]:
    return [n.message for n in estimate(layout).notices if n.code == "setting-changes-no-figure"]


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_deepspeeds_small_parameters_stay_gathered_in_16_bits(config: dict[str, Any]) -> None:
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    width = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    biases = (hidden + 2 * width) * (config["model_type"] == "qwen2")

    held = part(ZERO3, "backward", "persisted-parameters", config)

    # Two norms a layer and the final one; Qwen's biases of queries, keys and values.
    assert held == 2 * (layers * (2 * hidden + biases) + hidden)


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_a_threshold_of_0_persists_nothing(config: dict[str, Any]) -> None:
    sharded = replace(ZERO3, zero_buffers=ZeroBuffers(param_persistence_threshold=0))

    assert part(sharded, "backward", "persisted-parameters", config) == 0


def test_a_sub_group_bounds_the_fp32_gradients_of_a_step() -> None:
    usual = part(ZERO3, "optimizer-step", "step-temporaries", LLAMA)
    small = replace(ZERO3, zero_buffers=ZeroBuffers(sub_group_size=100_000_000))

    # 8.03 billion parameters over 8 ranks are one group of up to a billion.
    assert usual == pytest.approx(8_030_261_248 / 8 * 4, rel=1e-2)
    assert part(small, "optimizer-step", "step-temporaries", LLAMA) == 400_000_000


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_broadcast_weights_are_whole_twice_unit_by_unit(config: dict[str, Any]) -> None:
    layout = replace(FSDP1, fsdp=FsdpSettings(sync_module_states=True))
    tables = (
        config["vocab_size"] * config["hidden_size"] * (1 + (not config["tie_word_embeddings"]))
    )

    loading = part(layout, "load", "gathered-parameters", config)

    # The root is the largest unit: embedding, final norm and head, in fp32.
    assert loading == 2 * 4 * (tables + config["hidden_size"])
    assert "load" not in {p.name for p in estimate(FSDP1, config).pool("gpu").phases}


def test_frozen_parameters_of_a_flat_unit_have_gradients_too() -> None:
    adapter = Adapter("lora", 16, adapter_targets(["q_proj", "v_proj"], "lora"))
    run: dict[str, Any] = {"adapter": adapter, "checkpointing": "full", "seq_len": 128}
    together = replace(FSDP1, fsdp=FsdpSettings(use_orig_params=True))
    # PEFT's wrapping policy, with which its FSDP recipes say false: adapters are units.
    apart = replace(FSDP1, fsdp=FsdpSettings(use_orig_params=False))

    held = [
        part(one, "backward", "gathered-parameters", LLAMA, **run)
        for one in (together, FSDP1, apart)
    ]
    assert held[0] > held[1] == held[2]


def test_transformer_engines_loss_writes_over_the_16_bit_logits() -> None:
    fused = replace(
        MEGATRON, megatron=MegatronSettings(fused_cross_entropy=True, cross_entropy_impl="te")
    )
    logits = 4096 * 128_256

    saved = part(MEGATRON, "loss", "activations", LLAMA) - part(fused, "loss", "activations", LLAMA)

    # Without: the logits and their fp32 copy, 6 bytes each; with: the logits alone.
    assert saved == pytest.approx(4 * logits, rel=0.02)


def test_settings_that_change_nothing_are_named_with_the_reason() -> None:
    gathered = replace(ZERO3, zero_buffers=ZeroBuffers(allgather_bucket_size=1000))
    native = replace(MEGATRON, megatron=MegatronSettings(fused_cross_entropy=True))
    strange = replace(FSDP1, zero_buffers=ZeroBuffers(reduce_bucket_size=1000))

    assert "gathers updated shards into the parameters themselves" in notices(gathered)[0]
    assert "keeps the fp32 softmax" in notices(native)[0]
    assert "fsdp1 shards here" in notices(strange)[0]
    assert notices(ZERO3) == []


@pytest.mark.parametrize(
    ("preset", "changes", "said"),
    [
        (
            "meta-llama/Llama-3.2-1B",
            {"kernels": Kernels(recurrence="fused")},
            ["training.kernels.recurrence changes no figure: llama has no recurrent layers."],
        ),
        (
            "tiiuae/falcon-mamba-7b",
            {"attention": "flash-attention-2"},
            ["training.attention changes no figure: falcon_mamba has no attention."],
        ),
        (
            "microsoft/deberta-v3-base",
            {"attention": "flash-attention-2"},
            [
                "training.attention changes no figure: transformers has eager attention alone for"
                " deberta-v2."
            ],
        ),
        ("ai21labs/Jamba-v0.1", {"attention": "flash-attention-2"}, []),
    ],
)
def test_kernels_that_a_model_does_not_run_are_said_to_change_nothing(
    preset: str, changes: dict[str, Any], said: list[str]
) -> None:
    made = estimate(Layout(), find_preset(preset).config, **changes)

    assert [n.message for n in made.notices if n.code == "setting-changes-no-figure"] == said
