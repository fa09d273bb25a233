"""Finds the public architecture a serving case names, or builds it from the sizes it states."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from tests.accuracy.case import Case, Unmapped

from sizewright_server.estimation.presets import UnknownPreset, find_preset, preset_names
from sizewright_server.estimation.serving.config import Settings
from sizewright_server.estimation.workload import ModelSource

#: Sizes of `arch` by their names in a configuration.
SIZES = {
    "layers": "layers",
    "hidden": "hidden",
    "heads": "heads",
    "kv_heads": "kv_heads",
    "ffn": "ffn",
    "vocab": "vocab",
}
#: Families by what a model's name says, the most special first.
NAMES = (
    ("kimi-vl", "kimi_vl"),
    ("deepseek-v3", "deepseek_v3"),
    ("deepseek-r1-distill-llama", "llama"),
    ("deepseek-r1-distill-qwen", "qwen2"),
    ("deepseek-r1", "deepseek_v3"),
    ("deepseek-v2", "deepseek_v2"),
    ("deepseek-coder-v2", "deepseek_v2"),
    ("gpt-oss", "gpt_oss"),
    ("llama-4", "llama4"),
    ("gemma-3", "gemma3"),
    ("gemma-2", "gemma2"),
    ("gemma", "gemma"),
    ("qwen3.", "qwen3_5"),
    ("qwen3-next", "qwen3_next"),
    ("qwen3", "qwen3"),
    ("mixtral", "mixtral"),
    ("granite", "granite"),
    ("olmoe", "olmoe"),
    ("olmo-2", "olmo2"),
    ("cohere", "cohere"),
    ("command-r", "cohere"),
    ("aya", "cohere"),
    ("stablelm", "stablelm"),
    ("nemotron", "nemotron"),
    ("minimax-m2", "minimax_m2"),
    ("internvl", "llama"),
    ("gpt2", "gpt2"),
    ("glm-5", "glm_moe_dsa"),
    ("glm-4.5", "glm4_moe"),
    ("glm-4", "glm"),
    ("chatglm", "chatglm"),
    ("starcoder2", "starcoder2"),
    ("starcoder", "gpt_bigcode"),
    ("falcon", "falcon"),
    ("opt-", "opt"),
    ("bloom", "bloom"),
    ("gpt-neox", "gpt_neox"),
    ("pythia", "gpt_neox"),
    ("gpt-j", "gptj"),
    ("mpt", "mpt"),
    ("phi-2", "phi"),
    ("phi", "phi3"),
    ("qwen", "qwen2"),
    ("qwq", "qwen2"),
)
#: Configuration keys of model facts a case's `arch` does not state: towers, ranks and positions.
FACTS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "mistral-small-3.",
        {
            "model_type": "mistral3",
            "vision_config": {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "patch_size": 14,
                "image_size": 1540,
            },
            "max_position_embeddings": 131_072,
        },
    ),
    (
        "kimi-vl",
        {"q_lora_rank": None, "qk_nope_head_dim": 128, "v_head_dim": 128},
    ),
    ("v2-lite", {"q_lora_rank": None}),
    ("granite-3.1", {"max_position_embeddings": 131_072}),
    ("kimi-dev", {"max_position_embeddings": 131_072}),
    (
        "nemotron-nano-9b",
        {
            "model_type": "nemotron_h",
            "hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-",
            "mamba_num_heads": 128,
            "mamba_head_dim": 80,
            "ssm_state_size": 128,
            "n_groups": 8,
        },
    ),
    ("lingshu", {"model_type": "qwen2_5_vl", "vision_config": {"intermediate_size": 3456}}),
)


def served_source(work: Case) -> ModelSource:
    """The model's configuration. Raises Unmapped when neither name nor sizes give one."""
    name = str(work.get("model"))
    arch = work.get("arch") or {}
    config = (
        _preset(name, arch)
        or _by_sizes(name, arch)
        or _from_sizes(name, arch)
        or (None if arch else _by_words(name))
    )
    if config is None:
        raise Unmapped(f"model {name!r} is no preset and states no sizes")
    for part, facts in FACTS:
        if part in name.lower():
            config = {**config, **facts}
    return ModelSource(config)


def _preset(name: str, arch: Case) -> dict[str, Any] | None:
    for candidate in (name, re.sub(r"\s*\(.*\)$", "", name)):
        try:
            config = find_preset(candidate).config
        except UnknownPreset:
            continue
        if not arch or _agrees(config, arch):
            return config
    return None


def _agrees(config: dict[str, Any], arch: Case) -> bool:
    """Whether a configuration has the stated depth and width."""
    settings = Settings({**config, **(config.get("text_config") or {})}, {})
    return all(
        arch.get(name) is None or settings.optional(name) in (None, arch[name])
        for name in ("layers", "hidden", "vocab")
    )


@cache
def _sizes() -> list[tuple[str, dict[str, Any], dict[str, int | None]]]:
    """Every preset with its sizes."""
    found = []
    for name in preset_names():
        config = find_preset(name).config
        text = config.get("text_config")
        settings = Settings({**config, **(text if isinstance(text, dict) else {})}, {})
        found.append((name, config, {size: settings.optional(size) for size in SIZES}))
    return found


def _by_sizes(name: str, arch: Case) -> dict[str, Any] | None:
    """A preset of just these sizes; of several, the one whose name shares most with this one."""
    if not arch.get("layers"):
        return None
    wanted = [(size, arch.get(key)) for key, size in SIZES.items()]
    same = [
        (preset, config)
        for preset, config, sizes in _sizes()
        if all(value is None or sizes[size] == value for size, value in wanted)
    ]
    words = set(re.split(r"[^a-z0-9.]+", name.lower()))
    same.sort(key=lambda found: -len(words & set(re.split(r"[^a-z0-9.]+", found[0].lower()))))
    return same[0][1] if same else None


#: Words at the end of a model's name that say how it was tuned or stored, not its shape.
TUNED = re.compile(
    r"[-_.]?(instruct|chat|it|hf|base|awq|gptq|int[48]|fp8|bf16|w[48]a\d+|quantized|dynamic|"
    r"bnb|4bit|8bit|preview|v\d(\.\d)?)(?=$|[-_.])",
)


def _shape_words(name: str) -> str:
    return TUNED.sub("", name.lower().rsplit("/", 1)[-1])


def _by_words(name: str) -> dict[str, Any] | None:
    """A preset of that name but for how it was tuned or stored."""
    wanted = _shape_words(name)
    same = [config for preset, config, _ in _sizes() if _shape_words(preset) == wanted]
    return same[0] if same else None


def _from_sizes(name: str, arch: Case) -> dict[str, Any] | None:
    """A configuration of the sizes a case states, in the family its name says."""
    if not all(arch.get(key) for key in ("layers", "hidden", "heads", "ffn", "vocab")):
        return None
    lower = name.lower()
    family = next((kind for part, kind in NAMES if part in lower), "llama")
    keys = {
        "num_hidden_layers": "layers",
        "hidden_size": "hidden",
        "num_attention_heads": "heads",
        "num_key_value_heads": "kv_heads",
        "head_dim": "head_dim",
        "intermediate_size": "ffn",
        "vocab_size": "vocab",
        "sliding_window": "sliding_window",
        "kv_lora_rank": "kv_lora_rank",
        "qk_rope_head_dim": "qk_rope_head_dim",
        "num_experts": "num_experts",
        "num_experts_per_tok": "moe_topk",
        "moe_intermediate_size": "moe_ffn",
        "n_shared_experts": "shared_experts",
        "shared_expert_intermediate_size": "shared_expert_ffn",
    }
    config = {key: arch[name] for key, name in keys.items() if arch.get(name)}
    config["model_type"] = _sparse(family) if arch.get("num_experts") else family
    config["max_position_embeddings"] = 131_072
    if arch.get("linear_attention_layers"):
        # Every published Qwen3.5 has 16 key heads and two value heads to each attention head.
        config |= {
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 2 * arch["heads"],
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "mamba_ssm_dtype": "float32",
        }
        if arch.get("full_attention_layers"):
            interval = arch["layers"] // arch["full_attention_layers"]
            config["full_attention_interval"] = interval
    if arch.get("mla"):
        config.pop("head_dim", None)
        config |= {"first_k_dense_replace": 1, "qk_nope_head_dim": 128, "v_head_dim": 128}
    return config


def _sparse(family: str) -> str:
    sparse = {
        "qwen2": "qwen2_moe",
        "qwen3": "qwen3_moe",
        "qwen3_5": "qwen3_5_moe",
        "llama": "mixtral",
        "phi3": "phimoe",
        "granite": "granitemoe",
    }
    return sparse.get(family, family)
