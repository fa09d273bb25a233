"""Stacks whose layers mix tokens in different ways: Jamba's periods and Nemotron-H's pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Config: TypeAlias = Mapping[str, Any]

#: Nemotron-H's layers by letter and by name (configuration_nemotron_h.py): each is one half.
LETTERS = {"M": "recurrent", "-": "mlp", "*": "attention", "E": "experts"}
NAMES = {
    "linear_attention": "recurrent",
    "mamba": "recurrent",
    "full_attention": "attention",
    "attention": "attention",
    "mlp": "mlp",
    "moe": "experts",
}


def nemotron_halves(config: Config) -> list[str]:
    """What each layer is, first to last. Raises ValueError where the configuration does not say."""
    pattern = config.get("hybrid_override_pattern")
    names = config.get("layers_block_type") or config.get("layer_types")
    if isinstance(names, list) and names:
        unknown = sorted({str(name) for name in names} - set(NAMES))
        if unknown:
            known = ", ".join(NAMES)
            raise ValueError(f"layers_block_type names {', '.join(unknown)}; known: {known}")
        return [NAMES[name] for name in names]
    if isinstance(pattern, str) and pattern and set(pattern) <= set(LETTERS):
        return [LETTERS[letter] for letter in pattern]
    raise ValueError(
        "layers_block_type or hybrid_override_pattern must say what each layer is; "
        f"letters of the pattern: {' '.join(LETTERS)}"
    )


def jamba_attends(config: Config, layers: int) -> list[bool]:
    """Which of Jamba's layers have attention in the place of Mamba."""
    period, offset = int(config["attn_layer_period"]), int(config["attn_layer_offset"])
    if not 0 <= offset < period:
        raise ValueError(f"attn_layer_offset {offset} must be below attn_layer_period {period}")
    return [i % period == offset for i in range(layers)]


def jamba_routes(config: Config, layers: int) -> list[bool]:
    """Which of Jamba's layers have experts in the place of one network."""
    period, offset = int(config["expert_layer_period"]), int(config["expert_layer_offset"])
    if not 0 <= offset < period:
        raise ValueError(f"expert_layer_offset {offset} must be below expert_layer_period {period}")
    several = int(config.get("num_experts", 1)) > 1
    return [several and i % period == offset for i in range(layers)]
