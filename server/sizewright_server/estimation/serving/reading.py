"""Turns a configuration into a `ServedModel`: the light front end of serving.

It lists tensors and caches, no operators, so it reads families the tape does not lower.
"""

from __future__ import annotations

from typing import Any

from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.serving import mixers
from sizewright_server.estimation.serving.config import Settings
from sizewright_server.estimation.serving.encoder_decoder import READ, read_encoder_decoder
from sizewright_server.estimation.serving.encoders import encoder_of
from sizewright_server.estimation.serving.families import Family, family_or_refusal
from sizewright_server.estimation.serving.feedforward import (
    dense,
    dense_width,
    experts_of,
    sparse,
)
from sizewright_server.estimation.serving.layer_kinds import Kind, layer_kinds
from sizewright_server.estimation.serving.model import (
    Encoder,
    Layer,
    LayerCache,
    ServedModel,
    Tensor,
)

TEXT_SECTIONS = ("text_config", "llm_config", "language_config", "thinker_config")
MOST_LAYERS = 10_000
#: Longest context where a configuration states none.
DEFAULT_POSITIONS = 2048


def read_served_model(config: dict[str, Any], field: str) -> ServedModel:
    """The model of a Hugging Face configuration.

    Raises UnsupportedWorkload, naming `field`, for an unknown model_type, a missing size or sizes
    that contradict one another.
    """
    if config.get("model_type") in READ:
        return read_encoder_decoder(config, field)
    family = family_or_refusal(config.get("model_type"), field)
    settings = Settings(_flat(config), family.defaults)
    encoder = encoder_of(family.vision, config, settings) if family.vision else None
    made = _model(str(config["model_type"]), settings, family, encoder, config)
    if settings.problems:
        raise UnsupportedWorkload(*(Violation(field, p) for p in dict.fromkeys(settings.problems)))
    return made


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's keys: those of the text section over the outer ones."""
    outer = {key: value for key, value in config.items() if not key.endswith("_config")}
    for name in ("attn_config", "ffn_config"):
        if name in config:
            outer[name] = config[name]
    for name in TEXT_SECTIONS:
        section = config.get(name)
        if isinstance(section, dict):
            return {**outer, **section, "model_type": config.get("model_type")}
    return outer


def _model(
    model_type: str,
    settings: Settings,
    family: Family,
    encoder: Encoder | None,
    config: dict[str, Any],
) -> ServedModel:
    hidden, vocab = settings.size("hidden"), settings.size("vocab")
    heads = 1 if family.mixer in ("mamba", "mamba2") else settings.size("heads")
    kinds = _checked(layer_kinds(settings, family), settings)
    distinct = list(dict.fromkeys(kinds))
    experts = experts_of(settings, family)
    layers = tuple(_layer(kind, settings, family, encoder) for kind in distinct)
    tied = settings.flag("tie_word_embeddings", family.tied)
    head_dim = mixers.head_dim_of(settings, hidden, heads)
    wide = dense_width(settings, family, hidden) if any("dense" in k for k in kinds) else 0
    return ServedModel(
        model_type=model_type,
        layers=layers,
        order=tuple(distinct.index(kind) for kind in kinds),
        embedding=_embedding(settings, family, hidden, vocab),
        head=_head(settings, family, hidden, vocab, tied=tied),
        final_norm=_final_norm(settings, family, hidden),
        hidden=hidden,
        heads=heads,
        kv_heads=mixers.kv_heads_of(settings, heads),
        head_dim=head_dim,
        ffn=wide,
        vocab=vocab,
        positions=settings.optional("positions") or DEFAULT_POSITIONS,
        rotary_dim=_rotary_dim(settings, family, head_dim),
        rotary_positions=_rotary_positions(settings, family),
        gated=family.gated,
        experts=experts,
        encoder=encoder,
        tied=tied,
        mask_elements=_mask_elements(settings, family, len(kinds)),
        quantisation=_quantisation(config),
    )


def _checked(kinds: list[Kind], settings: Settings) -> list[Kind]:
    if not 0 < len(kinds) <= MOST_LAYERS:
        settings.problems.append(f"has {len(kinds)} layers; at most {MOST_LAYERS:,} are read")
        return [Kind("full", "dense")]
    return kinds


def _layer(kind: Kind, settings: Settings, family: Family, encoder: Encoder | None) -> Layer:
    """The tensors and the cache of one kind of layer."""
    settings = settings.changed(dict(kind.own)) if kind.own else settings
    made, cache = _mixer(kind.mixer, settings, family, encoder)
    experts = experts_of(settings, family)
    network = kind.feedforward
    if network in ("dense", "both") or (network == "sparse" and experts is None):
        made += dense(settings, family)
    if network == "dense-wide":
        made += dense(settings, family, 2 * settings.size("ffn"))
    if network in ("sparse", "both") and experts is not None:
        made += sparse(settings, family, experts)
    hidden = settings.size("hidden")
    per_layer = settings.optional("hidden_size_per_layer_input")
    if per_layer:
        made += [Tensor("linear", per_layer, hidden), Tensor("linear", hidden, per_layer)]
        made.append(Tensor("vector", hidden))
    return Layer((*made, *_norms(family, hidden, _norm_count(family, settings, kind))), cache)


def _mixer(
    name: str, settings: Settings, family: Family, encoder: Encoder | None
) -> tuple[list[Tensor], LayerCache]:
    borrows = name.endswith("-shared")
    name = name.removesuffix("-shared")
    if name == "sliding":
        window = settings.size("sliding_window")
        return mixers.attention(settings, family, "sliding", window, borrows=borrows)
    if name == "chunked":
        return mixers.attention(settings, family, "chunked", settings.size("attention_chunk_size"))
    if name == "cross":
        return mixers.cross_attention(settings, encoder.tokens if encoder else 0)
    if name == "none":
        return [], mixers.NO_CACHE
    builders = {
        "latent": mixers.latent_attention,
        "gated-delta": mixers.gated_delta,
        "lightning": mixers.lightning,
        "mamba2": mixers.mamba2,
        "mamba": mixers.mamba,
    }
    if name in builders:
        return builders[name](settings)
    if name != "full":
        settings.problems.append(f"a layer of type {name!r} cannot be served yet")
    return mixers.attention(settings, family, "full", borrows=borrows)


def _norm_count(family: Family, settings: Settings, kind: Kind) -> int:
    """Falcon's newer decoder norms attention and MLP apart; both networks are normed apart.

    Blocks that lack a half lack its norm.
    """
    if family.mixer == "blocks":
        return sum(half != "none" for half in (kind.mixer, kind.feedforward))
    apart = int(settings.flag("new_decoder_architecture"))
    return family.norms + apart + (3 if kind.feedforward == "both" else 0)


def _final_norm(settings: Settings, family: Family, hidden: int) -> tuple[Tensor, ...]:
    """The norm after the last layer; OPT-350m, which norms after each half, has none."""
    if not family.final_norm or not settings.flag("do_layer_norm_before", True):
        return ()
    return _norms(family, hidden, 1)


def _norms(family: Family, width: int, count: int) -> tuple[Tensor, ...]:
    times = 2 if family.norm_bias else 1
    return (Tensor("vector", width, count=count * times),) if count else ()


def _embedding(settings: Settings, family: Family, hidden: int, vocab: int) -> tuple[Tensor, ...]:
    width = settings.or_else("word_embed_proj_dim", hidden)
    rows = vocab + (settings.optional("extra_vocabulary_rows") or 0)
    made = [Tensor("embedding", rows, width, split="vocabulary")]
    per_layer = settings.optional("hidden_size_per_layer_input")
    if per_layer:
        every = settings.size("layers") * per_layer
        rows = settings.or_else("vocab_size_per_layer_input", vocab)
        made += [Tensor("embedding", rows, every, split="vocabulary")]
        made += [Tensor("linear", every, hidden), Tensor("vector", per_layer)]
    if width != hidden:
        made.append(Tensor("linear", hidden, width, count=2))
    if family.learned_positions:
        rows = settings.size("positions") + family.extra_positions
        made.append(Tensor("embedding", rows, hidden))
    if family.embedding_norm:
        made += _norms(family, hidden, 1)
    return tuple(made)


def _head(
    settings: Settings, family: Family, hidden: int, vocab: int, *, tied: bool
) -> tuple[Tensor, ...]:
    made = [] if tied else [Tensor("head", vocab, hidden, split="vocabulary")]
    if family.flag("head_bias", settings):
        made.append(Tensor("vector", vocab, split="vocabulary"))
    return tuple(made)


def _rotary_dim(settings: Settings, family: Family, head_dim: int) -> int:
    if family.learned_positions or family.mixer in ("mamba", "mamba2"):
        return 0
    rope = settings.optional("qk_rope_head_dim")
    if rope:
        return rope
    if family.rotary_key is None:
        return head_dim
    return int(head_dim * settings.fraction(family.rotary_key))


def _rotary_positions(settings: Settings, family: Family) -> int:
    """Rows of all tables of cosines and sines; linear scaling lengthens the (global) one."""
    positions = settings.optional("positions") or DEFAULT_POSITIONS
    scaling = settings.section("rope_scaling")
    factor = scaling.get("factor", 1)
    kind = scaling.get("rope_type", scaling.get("type"))
    stretch = float(factor) if kind == "linear" and isinstance(factor, int | float) else 1.0
    return int(positions * (stretch + family.rotary_tables - 1))


def _mask_elements(settings: Settings, family: Family, layers: int) -> int:
    if family.mask_buffer is None:
        return 0
    copies = layers if family.mask_buffer == "layer" else 1
    return copies * (settings.optional("positions") or 0) ** 2


def _quantisation(config: dict[str, Any]) -> dict[str, object]:
    stated = config.get("quantization_config")
    return dict(stated) if isinstance(stated, dict) else {}
