"""The model of a published run: a preset of its name, or a configuration of its stated shape."""

from __future__ import annotations

import re
from typing import Any

from tests.accuracy.case import Case, Unmapped

from sizewright_server.estimation.presets import UnknownPreset, find_preset
from sizewright_server.estimation.workload import Head, ModelSource

HEADS: dict[str, Head] = {"sequence_classification": "sequence-classification"}
#: Classification tasks that a checkpoint of that head has in its name.
CLASSIFIERS = re.compile(r"[-_](mnli|xnli|sst-?2|mrpc)\b", re.IGNORECASE)
#: Names of sources for models that the presets know by another.
ALIASES = {
    "qwen/qwen3-14b-base": "Qwen/Qwen3-14B",
    "llama-3.3-70b-instruct": "meta-llama/Llama-3.1-70B",
    "gpt2-large": "openai-community/gpt2-large",
}
#: Words in a model's name, and the family whose wiring it has.
FAMILIES = (
    ("bert", "bert"),
    ("mixtral", "mixtral"),
    ("mpt", "mpt"),
    ("bloom", "bloom"),
    ("qwen3", "qwen3"),
    ("qwen", "qwen2"),
    ("nemotron", "nemotron"),
    ("gpt", "gpt2"),
    ("t5", "t5"),
    ("mt0", "t5"),
    ("baichuan", "llama"),
    ("yi-", "llama"),
    ("llama", "llama"),
    ("mistral", "mistral"),
)


def model_source(work: Case) -> ModelSource:
    """A preset, with another head where the run states one. Raises Unmapped."""
    name = str(work.get("model") or "")
    head = HEADS.get(str(work.get("settings", {}).get("head")))
    if head is None and CLASSIFIERS.search(name):
        head = "sequence-classification"
    config = _preset(name)
    if config is None:
        config = _config_of_shape(name, work)
    return ModelSource(config, head=head)


def _preset(name: str) -> dict[str, Any] | None:
    plain = re.sub(r"\s*\(.*\)$", "", name).strip()
    # A tuned model has the shape of the one it was tuned from.
    base = re.sub(r"-(Chat|Instruct|Base|it|hf|Embedding)(-.*)?$", "", plain, flags=re.IGNORECASE)
    alias = ALIASES.get(plain.lower(), "")
    for candidate in (plain, alias, base, f"{base}-Base", f"{base}-hf", base.rsplit("/", 1)[-1]):
        try:
            return dict(find_preset(candidate).config)
        except UnknownPreset:
            continue
    return None


def _config_of_shape(name: str, work: Case) -> dict[str, Any]:
    """A configuration of the stated layers and widths, wired as its name's family is."""
    arch = work.get("arch") or {}
    if not arch.get("layers") or not arch.get("hidden") or not arch.get("vocab"):
        raise Unmapped(f"model {name!r} is no preset and its shape is not stated")
    family = next((family for word, family in FAMILIES if word in name.lower()), None)
    if family is None:
        raise Unmapped(f"model {name!r} is no preset, and the family of its name is not known")
    maker = {"mpt": _mpt, "bloom": _bloom, "gpt2": _gpt2}.get(family, _llama_like)
    config = maker(arch, work)
    return {"model_type": family, **config} if "model_type" not in config else config


def _llama_like(arch: Case, work: Case) -> dict[str, Any]:
    params = work.get("params_b") or 0
    tied = params and params < _untied_billions(arch)
    return {
        "hidden_size": arch["hidden"],
        "intermediate_size": arch["ffn"],
        "num_hidden_layers": arch["layers"],
        "num_attention_heads": arch["heads"],
        "num_key_value_heads": arch.get("kv_heads") or arch["heads"],
        "head_dim": arch.get("head_dim") or arch["hidden"] // arch["heads"],
        "vocab_size": arch["vocab"],
        "hidden_act": "silu",
        "tie_word_embeddings": bool(tied),
    }


def _untied_billions(arch: Case) -> float:
    """Where a model stands between one table of its vocabulary and two."""
    hidden, kv = arch["hidden"], arch.get("kv_heads") or arch["heads"]
    grouped = hidden * kv // arch["heads"]
    block = 2 * hidden * hidden + 2 * hidden * grouped + 3 * hidden * arch["ffn"]
    return float(arch["layers"] * block + 1.5 * arch["vocab"] * hidden) / 1e9


def _gpt2(arch: Case, work: Case) -> dict[str, Any]:
    return {
        "n_embd": arch["hidden"],
        "n_layer": arch["layers"],
        "n_head": arch["heads"],
        "n_inner": arch["ffn"],
        "vocab_size": arch["vocab"],
        "n_positions": max(1024, int(work.get("seq_len") or 0)),
        "activation_function": "gelu",
    }


def _mpt(arch: Case, work: Case) -> dict[str, Any]:
    return {
        "d_model": arch["hidden"],
        "n_layers": arch["layers"],
        "n_heads": arch["heads"],
        "expansion_ratio": arch["ffn"] // arch["hidden"],
        "vocab_size": arch["vocab"],
        "max_seq_len": int(work.get("seq_len") or 2048),
    }


def _bloom(arch: Case, work: Case) -> dict[str, Any]:
    return {
        "hidden_size": arch["hidden"],
        "n_layer": arch["layers"],
        "n_head": arch["heads"],
        "vocab_size": arch["vocab"],
    }
