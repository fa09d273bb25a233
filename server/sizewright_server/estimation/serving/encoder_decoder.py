"""Models with an encoder and a decoder: T5, BART and Whisper, as a `ServedModel`.

A decoder layer is two layers here: self-attention with its own cache, and cross-attention with the
feed-forward network and a cache of the encoder's output. Shapes follow transformers 5.23
(modeling_t5.py, modeling_bart.py, modeling_whisper.py).
"""

from __future__ import annotations

from typing import Any

from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.serving.config import Settings
from sizewright_server.estimation.serving.mixers import NO_CACHE, linear
from sizewright_server.estimation.serving.model import Layer, LayerCache, ServedModel, Tensor

#: Families by the modelling code they share.
T5 = ("t5", "mt5", "umt5")
BART = ("bart", "mbart")
WHISPER = ("whisper",)
READ = (*T5, *BART, *WHISPER)
#: Attention that has no limit of positions (T5's are relative).
NO_LIMIT = 2**20
#: Rows before the first position of BART's tables.
BART_OFFSET = 2
#: Width of Whisper's convolutions in time.
KERNEL = 3

Tensors = list[Tensor]


def read_encoder_decoder(config: dict[str, Any], field: str) -> ServedModel:
    """The model of a configuration. Raises UnsupportedWorkload, naming `field`, for wrong sizes."""
    settings = Settings(config, {})
    kind = str(config["model_type"])
    made = _t5(kind, settings) if kind in T5 else _biased(kind, settings)
    if settings.problems:
        raise UnsupportedWorkload(*(Violation(field, p) for p in dict.fromkeys(settings.problems)))
    return made


def _norm(width: int, count: int = 1, *, biased: bool = True) -> Tensors:
    return [Tensor("vector", width, count=count * (2 if biased else 1))]


def _attention(hidden: int, inner: int, *, biased: bool, key_bias: bool = True) -> Tensors:
    """Four projections; Whisper's keys have no bias."""
    made = linear(inner, hidden, "heads", biased)
    made += linear(inner, hidden, "heads", biased and key_bias)
    made += linear(inner, hidden, "heads", biased)
    return [*made, *linear(hidden, inner, "heads", biased)]


def _network(hidden: int, width: int, *, gated: bool, biased: bool) -> Tensors:
    made: Tensors = []
    for _ in range(2 if gated else 1):
        made += linear(width, hidden, "width", biased, "linear")
    return [*made, *linear(hidden, width, "width", biased, "linear")]


def _caches(heads: int, head_dim: int, source_tokens: int) -> tuple[LayerCache, LayerCache]:
    return (
        LayerCache("full", heads, head_dim, head_dim),
        LayerCache("cross", heads, head_dim, head_dim, source_tokens),
    )


def _order(encoder: int, decoder: int) -> tuple[int, ...]:
    """Encoder layers, then the two halves of each decoder layer."""
    return (0,) * encoder + (1, 2) * decoder


def _t5(kind: str, settings: Settings) -> ServedModel:
    hidden, heads, vocab = (settings.size(name) for name in ("hidden", "heads", "vocab"))
    head_dim = settings.or_else("d_kv", hidden // max(1, heads))
    encoder = settings.size("num_layers")
    decoder = settings.or_else("num_decoder_layers", encoder)
    width = settings.size("d_ff")
    gated = str(settings.values.get("feed_forward_proj", "relu")).startswith("gated")
    buckets = settings.or_else("relative_attention_num_buckets", 32)
    tied = settings.flag("tie_word_embeddings", True)
    attention = _attention(hidden, heads * head_dim, biased=False)
    network = _network(hidden, width, gated=gated, biased=False)
    norm = _norm(hidden, biased=False)
    position = Tensor("vector", buckets, heads, split="heads")
    every = [position] if kind == "umt5" else []
    once = [] if every else [Tensor("vector", buckets, heads, count=2, split="heads")]
    own, source = _caches(heads, head_dim, 0)
    return ServedModel(
        model_type=kind,
        layers=(
            Layer((*attention, *network, *norm, *norm, *every), NO_CACHE),
            Layer((*attention, *norm, *every), own),
            Layer((*attention, *network, *norm, *norm), source),
        ),
        order=_order(encoder, decoder),
        embedding=(Tensor("embedding", vocab, hidden, split="vocabulary"), *once),
        head=() if tied else (Tensor("head", vocab, hidden, split="vocabulary"),),
        final_norm=tuple(_norm(hidden, 2, biased=False)),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        ffn=width,
        vocab=vocab,
        positions=NO_LIMIT,
        rotary_dim=0,
        gated=gated,
        tied=tied,
        encoder_decoder=True,
    )


def _biased(kind: str, settings: Settings) -> ServedModel:
    """BART and Whisper: biases, learned positions, norms with biases, one network width a side."""
    hidden, vocab = settings.size("hidden"), settings.size("vocab")
    heads = settings.size("decoder_attention_heads")
    speech = kind in WHISPER
    attention = _attention(hidden, hidden, biased=True, key_bias=not speech)
    networks = [
        _network(hidden, settings.size(f"{side}_ffn_dim"), gated=False, biased=True)
        for side in ("encoder", "decoder")
    ]
    norm, head_dim = _norm(hidden), hidden // max(1, heads)
    source_tokens = settings.size("max_source_positions") if speech else 0
    own, source = _caches(heads, head_dim, source_tokens)
    around = _speech_rows(settings, hidden) if speech else _text_rows(settings, hidden)
    # Norms after the last layers: of both sides; BART norms its embeddings instead, mBART both.
    final = {"bart": 2, "mbart": 4, "whisper": 2}[kind]
    tied = settings.flag("tie_word_embeddings", True)
    limit = "max_target_positions" if speech else "positions"
    return ServedModel(
        model_type=kind,
        layers=(
            Layer((*attention, *networks[0], *norm, *norm), NO_CACHE),
            Layer((*attention, *norm), own),
            Layer((*attention, *networks[1], *norm, *norm), source),
        ),
        order=_order(settings.size("encoder_layers"), settings.size("decoder_layers")),
        embedding=(Tensor("embedding", vocab, hidden, split="vocabulary"), *around),
        head=() if tied else (Tensor("head", vocab, hidden, split="vocabulary"),),
        final_norm=tuple(_norm(hidden, final)),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        ffn=max(settings.size("encoder_ffn_dim"), settings.size("decoder_ffn_dim")),
        vocab=vocab,
        positions=settings.size(limit),
        rotary_dim=0,
        gated=False,
        tied=tied,
        encoder_decoder=True,
        source_tokens=source_tokens,
    )


def _text_rows(settings: Settings, hidden: int) -> Tensors:
    """BART's tables of positions, one for each side."""
    rows = settings.size("positions") + BART_OFFSET
    return [Tensor("embedding", rows, hidden, count=2)]


def _speech_rows(settings: Settings, hidden: int) -> Tensors:
    """Whisper's convolutions over mel bins, and its positions of sound and of text."""
    bins = settings.size("num_mel_bins")
    return [
        Tensor("vision", hidden, KERNEL * bins),
        Tensor("vision", hidden, KERNEL * hidden),
        Tensor("vector", hidden, count=2),
        Tensor("embedding", settings.size("max_source_positions"), hidden),
        Tensor("embedding", settings.size("max_target_positions"), hidden),
    ]
