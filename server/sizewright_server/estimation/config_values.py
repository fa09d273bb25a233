"""Reads single values of one Hugging Face configuration, and collects what is wrong."""

from __future__ import annotations

from typing import Any

from sizewright_server.estimation.problems import UnsupportedWorkload, Violation

#: Configuration keys by the size they give, unless the family says otherwise.
COMMON_KEYS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
    "embedding": "embedding_size",
    "activation": "hidden_act",
    "attention_dropout": "attention_dropout",
    "hidden_dropout": "hidden_dropout",
    "embedding_dropout": "embedding_dropout",
    "experts_per_token": "num_experts_per_tok",
}


class ConfigValues:
    """The values of a configuration by the names its family has for them."""

    def __init__(self, config: dict[str, Any], family: dict[str, Any], field: str) -> None:
        self.config = {**family.get("defaults", {}), **_stated(config)}
        self.family = family
        self.field = field
        self.keys = {**COMMON_KEYS, **family.get("keys", {})}
        self.problems: list[str] = []

    def refuse_if_wrong(self) -> None:
        """Raises UnsupportedWorkload when anything was wrong."""
        if self.problems:
            raise UnsupportedWorkload(*(Violation(self.field, text) for text in self.problems))

    def _at(self, key: str) -> Any:
        """The value of a key, which may lead through nested objects: `attn_config.kv_n_heads`."""
        if key in self.config:
            return self.config[key]
        value: Any = self.config
        for part in key.split("."):
            if not isinstance(value, dict) or value.get(part) is None:
                return None
            value = value[part]
        return value

    def _size(self, name: str) -> int:
        value = self._optional(name)
        if value is None:
            self.problems.append(f"{self.keys[name]} is missing")
            return 1
        return value

    def _optional(self, name: str) -> int | None:
        if name not in self.keys:
            return None
        value = self._at(self.keys[name])
        if value is None or (value == 0 and name in MAY_BE_ZERO):
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            self.problems.append(f"{self.keys[name]} must be a whole number above 0, not {value!r}")
            return 1
        return value

    def _probability(self, name: str) -> float:
        value = self._at(self.keys[name])
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            self.problems.append(f"{self.keys[name]} must be from 0 to below 1, not {value!r}")
            return 0.0
        return float(value)


#: Sizes that say "none of it" with 0.
MAY_BE_ZERO = frozenset(
    {
        "convolution",
        "token_types",
        "shared_experts",
        "shared_ffn",
        "query_rank",
        "kv_heads",
        "rotary_dim",
    }
)


def _stated(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without its nulls: null means not stated."""
    return {key: value for key, value in config.items() if value is not None}
