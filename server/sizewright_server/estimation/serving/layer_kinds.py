"""Which mixer and which feed-forward network each layer of a model has."""

from __future__ import annotations

from typing import NamedTuple

from sizewright_server.estimation.block_configs import read_blocks, widest
from sizewright_server.estimation.hybrid_layers import LETTERS, NAMES
from sizewright_server.estimation.serving.config import Settings
from sizewright_server.estimation.serving.families import Family

#: Words of layer_types lists by what they mean here.
WORDS = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "gated-delta",
    "mamba": "mamba2",
}
#: What a family's linear attention is, where it is not a gated delta network.
LINEAR = {"lightning": "lightning", "hybrid": "mamba2"}
#: Nemotron-H's layers, each of which is one half.
HALVES = {
    "recurrent": ("mamba2", "none"),
    "attention": ("full", "none"),
    "mlp": ("none", "dense"),
    "experts": ("none", "sparse"),
}
#: Names that say a list is of halves.
ONE_HALF = frozenset({"mlp", "moe"})


class Kind(NamedTuple):
    """A layer's mixer and feed-forward network, and sizes of its own by configuration key."""

    mixer: str
    feedforward: str
    own: tuple[tuple[str, int], ...] = ()


def layer_kinds(settings: Settings, family: Family) -> list[Kind]:
    """The kind of every layer, in order."""
    pattern = settings.values.get("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:
        return [Kind(*HALVES[LETTERS[letter]]) for letter in pattern if letter in LETTERS]
    named = settings.names("layers_block_type") or []
    if ONE_HALF & set(named) and set(named) <= set(NAMES):
        return [Kind(*HALVES[NAMES[name]]) for name in named]
    if family.mixer == "blocks":
        return _blocks(settings)
    count = settings.size("layers")
    mixers = _mixers(settings, family, count)
    networks = _feedforwards(settings, family, count)
    shared = settings.optional("num_kv_shared_layers") or 0
    for i in range(max(0, count - shared), count if shared else 0):
        mixers[i] += "-shared"
        if settings.flag("use_double_wide_mlp"):
            networks[i] = "dense-wide"
    return [Kind(m, f) for m, f in zip(mixers, networks, strict=True)]


def _blocks(settings: Settings) -> list[Kind]:
    """Key/value heads and width of each layer, which may lack either half (Nemotron-NAS)."""
    blocks = read_blocks(settings.values, settings.problems)
    settings.values |= widest(blocks)
    return [
        Kind(
            "full" if block.kv_heads else "none",
            "dense" if block.ffn else "none",
            tuple((key, size) for key, size in widest([block]).items()),
        )
        for block in blocks
    ] or [Kind("full", "dense")]


def _mixers(settings: Settings, family: Family, count: int) -> list[str]:
    if family.mixer in ("latent", "mamba", "mamba2"):
        return [family.mixer] * count
    stated = settings.names("layer_types") or settings.names("layers_block_type")
    if stated and len(stated) == count:
        return [_word(word, family) for word in stated]
    every = _PATTERNS.get(family.mixer)
    if every is not None:
        return every(settings, count)
    window = settings.optional("sliding_window")
    if window and settings.flag("use_sliding_window", True):
        return ["sliding"] * count
    return ["full"] * count


def _word(word: str, family: Family) -> str:
    """A layer's mixer by the configuration's word; linear attention is of the family's kind."""
    if word == "linear_attention":
        return LINEAR.get(family.mixer, WORDS[word])
    return WORDS.get(word, word)


def _one_in(settings: Settings, count: int, every: int, other: str) -> list[str]:
    """Every `every`-th layer is full attention, the others are `other`."""
    return ["full" if (i + 1) % every == 0 else other for i in range(count)]


def _alternating(settings: Settings, count: int) -> list[str]:
    return _one_in(settings, count, 2, "sliding")


def _windows(settings: Settings, count: int) -> list[str]:
    every = settings.or_else("sliding_window_pattern", 6)
    return _one_in(settings, count, every, "sliding")


def _chunks(settings: Settings, count: int) -> list[str]:
    return _one_in(settings, count, settings.or_else("no_rope_layer_interval", 4), "chunked")


def _delta(settings: Settings, count: int) -> list[str]:
    return _one_in(settings, count, settings.or_else("full_attention_interval", 4), "gated-delta")


def _periodic(settings: Settings, count: int) -> list[str]:
    period, offset = settings.or_else("attn_layer_period", 8), _offset(settings, "attn_layer")
    return ["full" if i % period == offset else "mamba" for i in range(count)]


def _crossing(settings: Settings, count: int) -> list[str]:
    crossing = set(settings.numbers("cross_attention_layers"))
    return ["cross" if i in crossing else "full" for i in range(count)]


def _lightning(settings: Settings, count: int) -> list[str]:
    """MiniMax: 1 in attn_type_list is full attention; without one, every other layer is."""
    kinds = settings.numbers("attn_type_list")
    if len(kinds) == count:
        return ["full" if kind else "lightning" for kind in kinds]
    return ["lightning" if i % 2 else "full" for i in range(count)]


def _hybrid(settings: Settings, count: int) -> list[str]:
    """Mamba-2 layers, and attention where a list of layers says so."""
    attending = set(settings.numbers("attn_layer_indices"))
    return ["full" if i in attending else "mamba2" for i in range(count)]


_PATTERNS = {
    "lightning": _lightning,
    "hybrid": _hybrid,
    "alternating": _alternating,
    "windows": _windows,
    "chunks": _chunks,
    "gated-delta": _delta,
    "periodic": _periodic,
    "crossing": _crossing,
}


def _feedforwards(settings: Settings, family: Family, count: int) -> list[str]:
    if family.mixer in ("mamba", "mamba2"):
        return ["none"] * count
    if not family.sparse:
        return ["dense"] * count
    if family.flag("dense_beside_sparse", settings):
        return ["both"] * count
    return ["sparse" if _is_sparse(settings, i) else "dense" for i in range(count)]


def _is_sparse(settings: Settings, i: int) -> bool:
    """Whether layer `i` has experts, by whichever keys the family uses."""
    values = settings.values
    if "expert_layer_period" in values:
        return i % settings.or_else("expert_layer_period", 2) == _offset(settings, "expert_layer")
    if "interleave_moe_layer_step" in values:
        return (i + 1) % settings.or_else("interleave_moe_layer_step", 1) == 0
    if "moe_layer_start_index" in values:
        first = settings.optional("moe_layer_start_index") or 0
        return first <= i <= settings.or_else("moe_layer_end_index", 2**30)
    if i in settings.numbers("mlp_only_layers") or i < (
        settings.optional("first_k_dense_replace") or 0
    ):
        return False
    return (i + 1) % settings.or_else("decoder_sparse_step", 1) == 0


def _offset(settings: Settings, prefix: str) -> int:
    return settings.optional(f"{prefix}_offset") or 0
