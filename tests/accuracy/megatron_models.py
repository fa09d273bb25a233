"""Megatron-LM's own models as Hugging Face configurations."""

from __future__ import annotations

from typing import Any

from tests.accuracy.case import Case, Unmapped

#: Arguments of the mixture with latent attention in Megatron-LM's functional tests, which a case
#: names as "toy MLA-MoE" (test_cases/moe/*_fine_grained_offloading/model_config.yaml): layers
#: Et*3|(tt|)*6L over two stages of four chunks, three of them dense.
TOY_LATENT = "toy MLA-MoE"
TOY_LATENT_MODEL = {"q_lora_rank": 1536, "n_shared_experts": 1, "first_k_dense_replace": 3}
TOY_LATENT_STAGES = {"first_stage_layers": 9, "last_stage_layers": 6}
TOY_LATENT_CHUNKS = 4
TOY_LATENT_VOCABULARY_MULTIPLE = 3232
#: Vocabularies of the tokenizers that Megatron-LM's tests name.
VOCABULARIES = {
    "gpt2-bpe": 50257,
    "bert-wordpiece": 30522,
    "bert-large-cased": 28996,
    "nemotron-256k": 256000,
    "llama2-32k": 32000,
    "null": 131073,
}


def is_toy_latent(work: Case) -> bool:
    """Whether a case is that mixture."""
    return TOY_LATENT in str(work.get("model"))


def configuration(work: Case) -> dict[str, Any]:
    """The Hugging Face configuration with the same layers."""
    arch, settings = work.get("arch") or {}, work.get("settings") or {}
    # Megatron-LM's functional tests take GPT-2's vocabulary where they name no tokenizer.
    usual = "gpt2-bpe" if arch.get("mla") else ""
    vocab = arch.get("vocab") or VOCABULARIES.get(str(settings.get("tokenizer") or usual), 0)
    if not vocab:
        raise Unmapped("the vocabulary is not stated")
    if "encoder_layers" in arch:
        return _encoder_decoder(arch, settings, int(vocab), int(work["seq_len"]))
    common = {
        "hidden_size": arch["hidden"],
        "num_hidden_layers": arch["layers"],
        "num_attention_heads": arch["heads"],
        "num_key_value_heads": arch.get("kv_heads") or arch["heads"],
        "intermediate_size": arch["ffn"],
        "vocab_size": vocab,
        "max_position_embeddings": work["seq_len"],
        "tie_word_embeddings": settings.get("tied_embeddings") is not False,
    }
    return common | _family(work, arch, settings)


def _encoder_decoder(arch: Case, settings: Case, vocab: int, tokens: int) -> dict[str, Any]:
    """T5 of Megatron-LM: layer norms, biases and learned positions, as BART has them."""
    rates = ("dropout", "attention_dropout")
    return {
        "model_type": "bart",
        "d_model": arch["hidden"],
        "encoder_layers": arch["encoder_layers"],
        "decoder_layers": arch["decoder_layers"],
        "encoder_attention_heads": arch["heads"],
        "decoder_attention_heads": arch["heads"],
        "encoder_ffn_dim": arch["ffn"],
        "decoder_ffn_dim": arch["ffn"],
        "vocab_size": vocab + int(settings.get("extra_ids") or 0),
        "max_position_embeddings": tokens,
        "activation_function": "gelu",
        "tie_word_embeddings": True,
        "activation_dropout": 0.0,
    } | dict.fromkeys(rates, 0.1)


def _family(work: Case, arch: Case, settings: Case) -> dict[str, Any]:
    """Megatron-LM's layers by activation; its dropout is 0.1 unless a recipe says otherwise."""
    activation = str(settings.get("ffn_activation") or "gelu")
    if arch.get("mla"):
        return _latent(arch) | (TOY_LATENT_MODEL if is_toy_latent(work) else {})
    if "bert" in str(work.get("model")).lower():
        return {"model_type": "bert", "type_vocab_size": 2}
    if arch.get("num_experts"):
        return {
            "model_type": "mixtral",
            "intermediate_size": arch.get("moe_ffn") or arch["ffn"],
            "num_local_experts": arch["num_experts"],
            "num_experts_per_tok": arch["moe_topk"],
        }
    if activation == "swiglu" or "Qwen" in str(work.get("model")):
        qwen = "Qwen2" in str(work.get("model"))
        return {"model_type": "qwen2" if qwen else "llama"}
    if activation == "squared_relu":
        return {"model_type": "nemotron", "hidden_act": "relu2"}
    return _gelu_family(work, arch)


def _latent(arch: Case) -> dict[str, Any]:
    """Multi-latent attention with the ranks of Megatron Core's MLATransformerConfig."""
    return {
        "model_type": "deepseek_v3",
        "q_lora_rank": arch.get("q_lora_rank") or 512,
        "kv_lora_rank": arch.get("kv_lora_rank") or 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": arch["num_experts"],
        "num_experts_per_tok": arch["moe_topk"],
        "moe_intermediate_size": arch["moe_ffn"],
        "n_shared_experts": arch.get("shared_experts") or 0,
        "first_k_dense_replace": 0,
        "n_group": 1,
        "topk_group": 1,
    }


def _gelu_family(work: Case, arch: Case) -> dict[str, Any]:
    """GPT with learned positions; grouped queries are of a family without a table of them."""
    layers, heads, kv_heads = arch["layers"], arch["heads"], arch.get("kv_heads") or arch["heads"]
    if kv_heads == heads:
        return {
            "model_type": "gpt2",
            "n_embd": arch["hidden"],
            "n_layer": layers,
            "n_head": heads,
            "n_inner": arch["ffn"],
            "n_positions": work["seq_len"],
            "activation_function": "gelu",
        }
    return {
        "model_type": "mpt",
        "d_model": arch["hidden"],
        "n_layers": layers,
        "n_heads": heads,
        "expansion_ratio": arch["ffn"] // arch["hidden"],
        "attn_config": {"attn_pdrop": 0.1, "kv_n_heads": kv_heads},
        "resid_pdrop": 0.1,
    }
