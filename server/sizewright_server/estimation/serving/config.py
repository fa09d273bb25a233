"""Reads sizes out of a configuration and collects what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Names a size goes by in one family or another, the commonest first.
NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels", "attention_head_dim"),
    "ffn": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "vocab": ("vocab_size", "padded_vocab_size"),
    "positions": (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "seq_length",
        "model_max_length",
    ),
    "experts": (
        "num_local_experts",
        "num_experts",
        "n_routed_experts",
        "moe_num_experts",
    ),
    "experts_per_token": (
        "num_experts_per_tok",
        "experts_per_token",
        "top_k_experts",
        "moe_top_k",
        "moe_k",
    ),
    "expert_ffn": ("moe_intermediate_size",),
}

LARGEST_SIZE = 2**31


class Settings:
    """A configuration with a family's defaults under it. `problems` says what was wrong."""

    def __init__(self, config: dict[str, Any], defaults: dict[str, Any]) -> None:
        stated = {k: v for k, v in config.items() if v is not None or k == "q_lora_rank"}
        self.values = {**defaults, **stated}
        self.problems: list[str] = []

    def changed(self, values: dict[str, Any]) -> Settings:
        """The same configuration with other values for some keys; problems go to one list."""
        made = Settings(values, self.values)
        made.problems = self.problems
        return made

    def size(self, name: str) -> int:
        """A required size; 1 and a problem when it is missing."""
        value = self.optional(name)
        if value is None:
            self.problems.append(f"{self.keys(name)[0]} is missing")
            return 1
        return value

    def optional(self, name: str) -> int | None:
        """A size by its short name or its own key; None when it is not stated or zero."""
        for key in self.keys(name):
            value = self.values.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                self.problems.append(f"{key} must be a whole number, not {value!r}")
                return 1
            if not 0 <= value < LARGEST_SIZE:
                self.problems.append(f"{key} must be from 0 to below {LARGEST_SIZE}, not {value}")
                return 1
            return value or None
        return None

    def or_else(self, name: str, usual: int) -> int:
        """An optional size, or what is usual."""
        return self.optional(name) or usual

    def flag(self, key: str, usual: bool = False) -> bool:
        """A switch."""
        return bool(self.values.get(key, usual))

    def fraction(self, key: str, usual: float = 1.0) -> float:
        """A share from above 0 to 1, which newer files keep among the rotary parameters."""
        value = self.values.get(key)
        if value is None:
            rotary = self.values.get("rope_parameters")
            value = rotary.get(key) if isinstance(rotary, dict) else None
        if value is None:
            return usual
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            self.problems.append(f"{key} must be above 0 and at most 1, not {value!r}")
            return usual
        return float(value)

    def names(self, key: str) -> list[str] | None:
        """A list of words, such as layer_types; None when it is not stated."""
        value = self.values.get(key)
        return [str(item) for item in value] if isinstance(value, Sequence) else None

    def numbers(self, key: str) -> list[int]:
        """A list of whole numbers; empty when it is not stated."""
        value = self.values.get(key)
        if not isinstance(value, Sequence) or isinstance(value, str):
            return []
        return [int(item) for item in value if isinstance(item, int)]

    def section(self, key: str) -> dict[str, Any]:
        """A nested configuration; empty when there is none."""
        value = self.values.get(key)
        return value if isinstance(value, dict) else {}

    @staticmethod
    def keys(name: str) -> tuple[str, ...]:
        """The keys a size may have."""
        return NAMES.get(name, (name,))
