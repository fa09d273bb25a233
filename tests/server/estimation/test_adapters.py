"""What an adapter saves and what it leaves out, against traces of PEFT on fake CUDA tensors.

The traced figures are allocated peaks of PEFT 0.21 and transformers 5.23 over two training steps of
a four-layer Llama (hidden 1024, feed-forward 2816, 16 heads, 4 key/value heads, vocabulary 8000) in
bf16, 2 x 512 tokens, fused AdamW; `measure/trace_model.py` makes them.
"""

from __future__ import annotations

from typing import Any

import pytest

from sizewright_server.estimation.adapter_targets import adapter_targets, default_rank
from sizewright_server.estimation.estimator import UnsupportedWorkload, prepare
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Adapter, BaseWeights
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 8000,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QV = ("q_proj", "v_proj")
TRACED = [
    ("lora", 16, QV, 0.0, 398_475_264),
    ("lora", 16, QV, 0.05, 404_766_720),
    ("lora", 16, EVERY, 0.0, 524_455_936),
    ("dora", 16, QV, 0.0, 430_054_400),
    ("adalora", 16, QV, 0.0, 420_728_832),
    ("vera", 16, QV, 0.0, 383_541_248),
    ("boft", 4, QV, 0.0, 427_763_712),
    ("oft", 32, QV, 0.0, 400_912_384),
    ("ia3", 1, ("k_proj", "v_proj", "down_proj"), 0.0, 412_381_184),
]


def training(adapter: Adapter | None, base: BaseWeights | None = None, **changes: Any) -> Training:
    return Training(
        precision="bf16",
        optimizer=Optimizer("adamw", "fused"),
        micro_batch=2,
        seq_len=512,
        layout=Layout(),
        adapter=adapter,
        base_weights=base or (BaseWeights("bf16") if adapter else None),
        **changes,
    )


def peak_bytes(run: Training, config: dict[str, Any] = LLAMA) -> int:
    prepared = prepare(Workload(ModelSource(config), run))
    estimate = prepared.estimate(Layout(), 1, device_overhead(None, None))
    gpu = estimate.pool("gpu").gpu
    assert gpu is not None
    return gpu.allocated.best_bytes


def lora(method: Any = "lora", rank: int = 8, names: tuple[str, ...] = QV, **rest: Any) -> Adapter:
    return Adapter(method, rank, adapter_targets(names, method), **rest)


@pytest.mark.parametrize(("method", "rank", "names", "dropout", "traced"), TRACED)
def test_the_peak_of_an_adapter_is_what_peft_allocates(
    method: str, rank: int, names: tuple[str, ...], dropout: float, traced: int
) -> None:
    run = training(lora(method, rank, names, dropout=dropout))
    assert peak_bytes(run) == pytest.approx(traced, rel=0.003)


@pytest.mark.parametrize(
    ("method", "traced"), [("prompt-tuning", 375_774_720), ("prefix-tuning", 384_312_320)]
)
def test_virtual_tokens_are_tokens_of_every_layer(method: Any, traced: int) -> None:
    """Before a sample's own, or before its keys alone; 20 of them, traced as the others."""
    run = training(Adapter(method, virtual_tokens=20))
    assert peak_bytes(run) == pytest.approx(traced, rel=0.011)


def test_lora_counts_its_trained_parameters_to_the_unit() -> None:
    run = training(lora(rank=16))
    prepared = prepare(Workload(ModelSource(LLAMA), run))
    assert prepared.trainable_parameter_count == 212_992
    assert prepared.parameter_count == 61_481_984 + 212_992


def test_a_quantised_base_is_smaller_by_what_its_linear_weights_lose() -> None:
    whole = prepare(Workload(ModelSource(LLAMA), training(lora())))
    linear = 61_481_984 - 2 * 8000 * 1024 - 9 * 1024
    nf4 = prepare(Workload(ModelSource(LLAMA), training(lora(), BaseWeights("nf4"))))

    def weights(prepared: Any) -> int:
        return int(prepared.group([Layout()]).resident.weights[0])

    assert weights(whole) - weights(nf4) == pytest.approx(linear * (2 - 0.5625), rel=1e-3)


def test_double_quantisation_takes_a_third_of_a_bit_more_off_each_weight() -> None:
    def weights(base: BaseWeights) -> int:
        prepared: Any = prepare(Workload(ModelSource(LLAMA), training(lora(), base)))
        return int(prepared.group([Layout()]).resident.weights[0])

    linear = 61_481_984 - 2 * 8000 * 1024 - 9 * 1024
    saved = weights(BaseWeights("nf4")) - weights(BaseWeights("nf4", double_quantization=True))
    assert saved == pytest.approx(linear * (0.5625 - 0.5159), rel=1e-2)


def test_only_the_a_matrices_of_lora_fa_keep_no_input() -> None:
    assert peak_bytes(training(lora("lora-fa"))) < peak_bytes(training(lora()))


def test_peft_defaults_are_known() -> None:
    assert adapter_targets((), "ia3") >= {"k", "v", "down"}
    assert adapter_targets((), "lora") >= {"q", "v"}
    assert adapter_targets(("c_attn",), "lora") >= {"qkv", "q", "k", "v"}
    assert default_rank("oft") == 32


def test_a_name_that_begins_with_a_half_of_the_block_means_that_half() -> None:
    assert adapter_targets(("mlp.c_proj",), "lora") == {"down"}
    assert adapter_targets(("attn.c_proj", "model.layers.0.mlp.up_proj"), "lora") == {"o", "up"}


def test_a_method_that_peft_has_not_for_a_kind_of_layer_is_refused() -> None:
    gpt2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 100}
    run = training(Adapter("oft", 32, adapter_targets(("c_attn",), "oft")))
    with pytest.raises(UnsupportedWorkload, match="PEFT has no oft for the Conv1D layers"):
        prepare(Workload(ModelSource(gpt2), run))


def test_an_adapter_that_finds_nothing_to_adapt_is_refused() -> None:
    run = training(Adapter("lora", 8, frozenset({"gate-up"})))
    with pytest.raises(UnsupportedWorkload, match="no linear layers of the kinds gate-up"):
        prepare(Workload(ModelSource(LLAMA), run))


QWEN_MOE = find_preset("Qwen/Qwen3-30B-A3B").config


def of_experts(method: Any = "lora", dropout: float = 0.0) -> Workload:
    adapter = Adapter(method, 16, adapter_targets(["all-linear"], method), dropout=dropout)
    run = Training(
        "bf16", Optimizer("adamw"), 1, 2048, adapter=adapter, base_weights=BaseWeights("bf16")
    )
    return Workload(ModelSource(QWEN_MOE), run)


def test_all_linear_adapts_every_expert_and_says_what_it_costs() -> None:
    made = prepare(of_experts(dropout=0.05))

    # Per layer: q, k, v, o; the router; of 128 experts gate and up at twice the rank, and down.
    hidden, inner = 2048, 768
    attention = 2 * (hidden + 4096) + 2 * (hidden + 512)
    experts = 128 * (2 * (hidden + 2 * inner) + inner + hidden)
    own = 48 * 16 * (attention + hidden + 128 + experts)
    assert made.trainable_parameter_count == own
    said = made.estimate(Layout(), 1, device_overhead(None, None)).notices
    words = next(n.message for n in said if n.code == "adapters-on-fused-experts")
    assert "PEFT takes no dropout there" in words


def test_dora_over_experts_is_refused() -> None:
    with pytest.raises(UnsupportedWorkload) as caught:
        prepare(of_experts("dora"))

    assert "PEFT has no dora for the fused weights of qwen3_moe's experts" in str(caught.value)
