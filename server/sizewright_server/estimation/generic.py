"""A model whose model_type is not known, taken as a generic transformer of its stated sizes.

Configurations name the same sizes in a few ways; the wiring is that of most models of today: norms
before each half, rotary positions, experts where they are stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sizewright_server.estimation.data_files import data_of

#: Names of each size, the usual one first.
NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model", "dim", "model_dim"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "n_kv_heads", "num_kv_heads", "multi_query_group_num"),
    "ffn": ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff", "hidden_dim"),
    "head_dim": ("head_dim", "kv_channels", "d_kv"),
    "vocab": ("vocab_size", "padded_vocab_size", "n_vocab"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "experts_per_token": ("num_experts_per_tok", "moe_k", "moe_top_k"),
    "expert_ffn": ("moe_intermediate_size", "intermediate_size"),
}


def generic_family(config: Mapping[str, Any]) -> dict[str, Any]:
    """A family entry that reads whatever names this configuration has for its sizes."""
    keys = {name: _stated(config, names) for name, names in NAMES.items()}
    act = str(config.get("hidden_act") or config.get("activation_function") or "silu")
    gated = act in ("silu", "swish") or str(config.get("hidden_activation", "")) != ""
    style: dict[str, Any] = {
        "norm": "rms",
        "order": "pre",
        "positions": "rope",
        "gated_mlp": gated,
        "softmax_fp32": True,
        "experts": config.get(keys["experts"]) is not None,
    }
    return {
        "style": style,
        "head": {"kind": "causal-lm"},
        "keys": keys,
        "activation": act,
        "ffn_multiple": 4,
        "defaults": {"tie_word_embeddings": False},
    }


def _stated(config: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if config.get(name) is not None), names[0])


@cache
def generic_shares() -> tuple[float, float]:
    """How much less and more than its estimate a generic model may take, as shares."""
    entry = data_of("sizewright_server.estimation", "generic")["generic-block"]
    return float(entry["low"]), float(entry["high"])
