"""Which layers of a stack differ, as configurations say it: windows, experts, positions.

A rule reads a configuration and gives, per layer, what differs from the family's style and sizes;
equal neighbours become one run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, TypeAlias

from sizewright_server.estimation.architecture import Run, Sizes, Style
from sizewright_server.estimation.block_configs import Block, read_blocks
from sizewright_server.estimation.hybrid_layers import (
    jamba_attends,
    jamba_routes,
    nemotron_halves,
)

Config: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer has of its own."""

    name: str = "block"
    style: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


def runs_of(rule: str | None, config: Config, style: Style, sizes: Sizes) -> tuple[Run, ...]:
    """The blocks of a stack as runs of equal layers. Raises ValueError with what is wrong."""
    if rule is None:
        return (Run("block", "block", "block", sizes.layers, style, sizes),)
    layers = RULES[rule](config, sizes)
    runs: list[Run] = []
    own: dict[str, tuple[Style, Sizes]] = {}
    for layer, group in groupby(layers, key=lambda layer: (layer.name, dict(layer.sizes))):
        members = list(group)
        first = members[0]
        key = repr(first)
        if key not in own:
            changed: dict[str, Any] = dict(first.sizes)
            own[key] = (replace(style, **first.style), replace(sizes, **changed))
        name = f"{layer[0]}-{len(runs)}" if len(runs) else layer[0]
        runs.append(Run(name, "block", "block", len(members), *own[key]))
    return tuple(runs)


def one_window(config: Config, sizes: Sizes) -> list[Layer]:
    """Every layer sees the same window, where there is one."""
    window = _window(config)
    return sizes.layers * [_sliding(window) if window else Layer()]


def layer_types(config: Config, sizes: Sizes) -> list[Layer]:
    """Windows by name of each layer, or every n-th layer global."""
    window = _window(config)
    return [_sliding(window) if kind == "sliding" else Layer() for kind in _kinds(config, sizes)]


def qwen_windows(config: Config, sizes: Sizes) -> list[Layer]:
    """Windows from layer `max_window_layers` on, where they are switched on."""
    window = _window(config) if config.get("use_sliding_window") else 0
    first = int(config.get("max_window_layers", sizes.layers))
    return [_sliding(window) if window and i >= first else Layer() for i in range(sizes.layers)]


def no_rope(config: Config, sizes: Sizes) -> list[Layer]:
    """Every n-th layer has no position embedding; `no_rope_layers` holds 1 where it has one."""
    given = config.get("no_rope_layers")
    step = int(config.get("no_rope_layer_interval", 4))
    turns = given or [int((i + 1) % step != 0) for i in range(sizes.layers)]
    return [Layer() if turn else Layer("block-nope", {"positions": "none"}) for turn in turns]


def no_rope_global(config: Config, sizes: Sizes) -> list[Layer]:
    """Cohere 2: layers with a window turn their heads, the others have no positions."""
    window = _window(config)
    unturned = Layer("block-nope", {"positions": "none"})
    return [_sliding(window) if kind == "sliding" else unturned for kind in _kinds(config, sizes)]


def sparse_step(config: Config, sizes: Sizes) -> list[Layer]:
    """Experts in every n-th layer but those listed as plain."""
    step, plain = int(config.get("decoder_sparse_step", 1)), config.get("mlp_only_layers") or []
    return [
        _expert() if i not in plain and (i + 1) % step == 0 else _dense()
        for i in range(sizes.layers)
    ]


def delta_nets(config: Config, sizes: Sizes) -> list[Layer]:
    """Gated delta nets but in every n-th layer, which attends; experts as `sparse_step` says."""
    attends = [kind == "full" for kind in _delta_kinds(config, sizes)]
    sparse = sparse_step(config, sizes) if sizes.experts else [Layer()] * sizes.layers
    return [
        _attending(layer) if full else replace(layer, name=f"delta-{layer.name}")
        for layer, full in zip(sparse, attends, strict=True)
    ]


def dense_first(config: Config, sizes: Sizes) -> list[Layer]:
    """Experts from a first layer on, in every n-th."""
    first, step = int(config.get("first_k_dense_replace", 0)), int(config.get("moe_layer_freq", 1))
    return [_expert() if i >= first and i % step == 0 else _dense() for i in range(sizes.layers)]


def chosen_keys(config: Config, sizes: Sizes) -> list[Layer]:
    """DeepSeek V3.2 and GLM-5: experts where `mlp_layer_types` says sparse, by default from a first
    layer on; of GLM-5's layers some see the keys that a layer before them chose.
    """
    plain = _whole(config, "first_k_dense_replace", 3)
    kinds = config.get("mlp_layer_types") or [
        "dense" if i < plain else "sparse" for i in range(sizes.layers)
    ]
    choosing = _choosing(config, sizes.layers)
    for name, given in (("mlp_layer_types", kinds), ("indexer_types", choosing)):
        if len(given) != sizes.layers:
            raise ValueError(f"{name} names {len(given)} layers of {sizes.layers}")
    if choosing[:1] == ["shared"]:
        raise ValueError("indexer_types: the first layer is shared, but none before it chose keys")
    layers = []
    for kind, how in zip(kinds, choosing, strict=True):
        layer = _expert() if kind == "sparse" else _dense()
        if how == "shared":
            layer = Layer(f"shared-{layer.name}", {**layer.style, "indexer": "shared"})
        layers.append(layer)
    return layers


def _choosing(config: Config, layers: int) -> list[str]:
    """ "full" or "shared" per layer: stated, as a pattern of F and S, or every n-th from one on."""
    letters = {"F": "full", "S": "shared", "full": "full", "shared": "shared"}
    given = config.get("indexer_types") or config.get("index_topk_pattern")
    if given:
        unknown = [kind for kind in given if kind not in letters]
        if unknown:
            raise ValueError(f"indexer_types: {unknown[0]!r} is neither full nor shared")
        return [letters[kind] for kind in given]
    step = max(_whole(config, "index_topk_freq", 1), 1)
    offset = _whole(config, "index_skip_topk_offset", 2)
    return ["shared" if max(i - offset + 1, 0) % step else "full" for i in range(layers)]


def _whole(config: Config, key: str, unless: int) -> int:
    value = config.get(key, unless)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key} must be a whole number, not {value!r}")
    return value


def ernie_moe(config: Config, sizes: Sizes) -> list[Layer]:
    """Experts between two layers, in every n-th."""
    step = int(config.get("moe_layer_interval", 1))
    start, end = int(config.get("moe_layer_start_index", 0)), config.get("moe_layer_end_index", -1)
    last = sizes.layers - 1 if end in (-1, None) else int(end)
    return [
        _expert() if (i + 1) % step == 0 and start <= i <= last else _dense()
        for i in range(sizes.layers)
    ]


def llama4(config: Config, sizes: Sizes) -> list[Layer]:
    """Experts in every n-th layer; three layers of four see chunks and turn their heads."""
    step = int(config.get("interleave_moe_layer_step", 1))
    moe = config.get("moe_layers") or list(range(step - 1, sizes.layers, step))
    given = config.get("no_rope_layers") or []
    turns = given or [int((i + 1) % 4 != 0) for i in range(sizes.layers)]
    chunk = int(config.get("attention_chunk_size") or 0)
    layers = []
    for i in range(sizes.layers):
        name = ("expert" if i in moe else "dense") + ("" if turns[i] else "-nope")
        style = {"experts": i in moe} | ({"sliding": True} if turns[i] else {"positions": "none"})
        layers.append(Layer(f"{name}-block", style, {"window": chunk if turns[i] else 0}))
    return layers


def block_configs(config: Config, _sizes: Sizes) -> list[Layer]:
    """Key/value heads and width of each layer, which may lack either half."""
    problems: list[str] = []
    blocks = read_blocks(config, problems)
    if problems:
        raise ValueError("; ".join(problems))
    return [_own_sizes(block) for block in blocks]


def jamba(config: Config, sizes: Sizes) -> list[Layer]:
    """Mamba with attention at every n-th layer, one network with experts at every n-th."""
    attends, routes = jamba_attends(config, sizes.layers), jamba_routes(config, sizes.layers)
    return [
        Layer(
            f"{'attention' if full else 'mamba'}-{'expert' if sparse else 'dense'}-block",
            {"experts": sparse} | ({"mixer": "attention"} if full else {}),
        )
        for full, sparse in zip(attends, routes, strict=True)
    ]


def nemotron_h(config: Config, _sizes: Sizes) -> list[Layer]:
    """One half in every layer: Mamba-2, attention, a network or experts."""
    halves: dict[str, dict[str, Any]] = {
        "recurrent": {"feeds_forward": False, "experts": False},
        "attention": {"feeds_forward": False, "experts": False, "mixer": "attention"},
        "mlp": {"attends": False, "experts": False},
        "experts": {"attends": False},
    }
    names = {"recurrent": "mamba"}
    return [
        Layer(f"{names.get(half, half)}-block", halves[half]) for half in nemotron_halves(config)
    ]


RULES: Mapping[str, Callable[[Config, Sizes], list[Layer]]] = {
    "one-window": one_window,
    "layer-types": layer_types,
    "qwen-windows": qwen_windows,
    "no-rope": no_rope,
    "no-rope-global": no_rope_global,
    "sparse-step": sparse_step,
    "delta-nets": delta_nets,
    "dense-first": dense_first,
    "chosen-keys": chosen_keys,
    "ernie-moe": ernie_moe,
    "llama4": llama4,
    "block-configs": block_configs,
    "jamba": jamba,
    "nemotron-h": nemotron_h,
}


def _own_sizes(block: Block) -> Layer:
    kept = {"attends": bool(block.kv_heads), "feeds_forward": bool(block.ffn)}
    halves = [name for name, size in (("attention", block.kv_heads), ("ffn", block.ffn)) if size]
    name = "block" if len(halves) == 2 else f"{''.join(halves) or 'empty'}-block"
    sizes = {"kv_heads": block.kv_heads, "ffn": block.ffn}
    return Layer(name, kept, {size: value for size, value in sizes.items() if value})


def _expert() -> Layer:
    return Layer("expert-block")


def _dense() -> Layer:
    return Layer("dense-block", {"experts": False})


def _attending(layer: Layer) -> Layer:
    """A layer of a hybrid that attends: it has no delta net."""
    style = {**layer.style, "mixer": "attention"}
    return replace(layer, style=style, sizes={**layer.sizes, "delta_heads": 0})


def _delta_kinds(config: Config, sizes: Sizes) -> list[str]:
    """ "delta" or "full" per layer."""
    step = int(config.get("full_attention_interval") or 4)
    turns = ["delta" if (i + 1) % step else "full" for i in range(sizes.layers)]
    given = config.get("layer_types")
    if given is None:
        return turns
    words = {"linear_attention": "delta", "full_attention": "full"}
    unknown = sorted({str(kind) for kind in given} - set(words))
    if unknown:
        raise ValueError(
            f"layer_types {', '.join(unknown)} are not known; known: {', '.join(words)}"
        )
    if len(given) != sizes.layers:
        raise ValueError(f"layer_types names {len(given)} layers of {sizes.layers}")
    return [words[kind] for kind in given]


def _sliding(window: int) -> Layer:
    return Layer("window-block", {"sliding": True}, {"window": window})


def _window(config: Config) -> int:
    if "local_attention" in config:
        return int(config["local_attention"]) // 2
    return int(config.get("sliding_window") or 0)


def _kinds(config: Config, sizes: Sizes) -> list[str]:
    """ "sliding" or "full" per layer."""
    given = config.get("layer_types")
    if config.get("global_attn_every_n_layers"):
        step = int(config["global_attn_every_n_layers"])
        return ["sliding" if i % step else "full" for i in range(sizes.layers)]
    if given:
        if len(given) != sizes.layers:
            raise ValueError(f"layer_types names {len(given)} layers of {sizes.layers}")
        return ["sliding" if "sliding" in kind else "full" for kind in given]
    step = int(config.get("sliding_window_pattern") or 2)
    return ["full" if (i + 1) % step == 0 else "sliding" for i in range(sizes.layers)]
