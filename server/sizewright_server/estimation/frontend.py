"""The Hugging Face front end: a config.json becomes an `Architecture`.

What differs between families is data (`data/families.json`); this module only reads it.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from typing import Any

from sizewright_server.estimation.architecture import (
    Architecture,
    HeadStyle,
    Sizes,
    Style,
    stacked,
)
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.workload import ModelSource

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
}

#: Activations by what they save and how they are computed (transformers/activations.py).
ACTIVATIONS: dict[str, dict[str, str]] = {
    "silu": {"activation": "silu"},
    "swish": {"activation": "silu"},
    "gelu": {},
    "gelu_pytorch_tanh": {},
    "gelu_fast": {"activation": "gelu-fast"},
    "gelu_new": {"activation": "gelu-new"},
    "quick_gelu": {"activation": "quick-gelu"},
    "relu": {"activation_saves": "output"},
    "relu2": {"activation": "relu-squared"},
    "tanh": {"activation_saves": "output"},
}


@cache
def families() -> dict[str, dict[str, Any]]:
    """Every family by model_type."""
    text = resources.files("sizewright_server.estimation").joinpath("data/families.json")
    table: dict[str, dict[str, Any]] = json.loads(text.read_text(encoding="utf-8"))
    return {name: entry for name, entry in table.items() if not name.startswith("_")}


def read_architecture(source: ModelSource, field: str) -> Architecture:
    """The architecture of a configuration.

    Raises UnsupportedWorkload, naming `field`, for a model_type that is not known, a missing size
    or a size that contradicts another.
    """
    family = _family(source.config, field)
    reader = _Reader(source.config, family, field)
    sizes = reader.sizes()
    style = reader.style(sizes)
    head = reader.head(source)
    reader.refuse_if_wrong()
    model_type = str(model_type_of(source.config))
    return Architecture(model_type, style, sizes, head, stacked(style, sizes))


def model_type_of(config: dict[str, Any]) -> str | None:
    """The model_type of a configuration, or of the configuration class it names in `class`."""
    stated = config.get("model_type")
    if stated is not None:
        return str(stated)
    named = str(config.get("class", "")).removesuffix("Config")
    plain = {_letters(name): name for name in families()}
    return plain.get(_letters(named))


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _family(config: dict[str, Any], field: str) -> dict[str, Any]:
    model_type = model_type_of(config)
    known = families()
    if model_type in known:
        return known[str(model_type)]
    near = difflib.get_close_matches(str(model_type), known, n=3)
    hint = f"; near: {', '.join(near)}" if near else ""
    raise UnsupportedWorkload(
        Violation(
            field,
            f"model_type {model_type!r} is not built yet{hint}; known: {', '.join(sorted(known))}",
        )
    )


class _Reader:
    """Reads one configuration against its family; collects what is wrong."""

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

    def sizes(self) -> Sizes:
        """The numbers, with the family's rules for what a configuration leaves out."""
        hidden, heads = self._size("hidden"), self._size("heads")
        head_dim = self._optional("head_dim") or self._divide(hidden, heads)
        return Sizes(
            layers=self._size("layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=self._kv_heads(heads),
            head_dim=head_dim,
            ffn=self._optional("ffn") or self._ffn(hidden),
            vocab=self._size("vocab"),
            position_rows=self._position_rows(),
            token_types=self._optional("token_types") or 0,
            embedding=self._optional("embedding") or hidden,
            rotary_dim=self._rotary_dim(head_dim),
            attention_dropout=self._probability("attention_dropout"),
            hidden_dropout=self._probability("hidden_dropout"),
            embedding_dropout=self._probability("embedding_dropout"),
        )

    def style(self, sizes: Sizes) -> Style:
        """The wiring: the family's, bent by the configuration's switches."""
        fields: dict[str, Any] = dict(self.family["style"])
        for name, key in self.family.get("from_config", {}).items():
            if key in self.config:
                fields[name] = bool(self.config[key])
        act = self.config.get(self.keys["activation"])
        if act not in ACTIVATIONS:
            known = ", ".join(sorted(ACTIVATIONS))
            self.problems.append(f"{self.keys['activation']} {act!r} is not known; known: {known}")
        fields |= ACTIVATIONS.get(str(act), {})
        if fields["positions"] == "rope" and sizes.rotary_dim < sizes.head_dim:
            fields.setdefault("rotary", "partial")
            if fields["rotary"] == "full":
                fields["rotary"] = "partial"
        return Style(**fields)

    def head(self, source: ModelSource) -> HeadStyle:
        """The head asked for, or the one the architecture is published with."""
        published: dict[str, Any] = self.family["head"]
        tied = bool(self.config.get("tie_word_embeddings", True))
        asked = source.head or published["kind"]
        if asked == "pretraining":
            asked = published["kind"]
        if asked == "none":
            return HeadStyle(**{"kind": "none", **self.family.get("body_head", {})})
        if asked == "sequence-classification":
            return HeadStyle(
                kind="sequence-classification",
                upcast_logits=False,
                **self.family.get("classifier", {}),
            )
        if asked != published["kind"]:
            self.problems.append(
                f"head {asked!r} does not go with {self.config['model_type']}; "
                f"use {published['kind']!r}, 'sequence-classification' or 'none'"
            )
        return HeadStyle(**{"tied": tied, **published})

    def _size(self, name: str) -> int:
        value = self._optional(name)
        if value is None:
            self.problems.append(f"{self.keys[name]} is missing")
            return 1
        return value

    def _optional(self, name: str) -> int | None:
        value = self.config.get(self.keys[name])
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            self.problems.append(f"{self.keys[name]} must be a whole number above 0, not {value!r}")
            return 1
        return value

    def _probability(self, name: str) -> float:
        value = self.config.get(self.keys[name], 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            self.problems.append(f"{self.keys[name]} must be from 0 to below 1, not {value!r}")
            return 0.0
        return float(value)

    def _divide(self, hidden: int, heads: int) -> int:
        if hidden % heads:
            self.problems.append(
                f"{self.keys['hidden']} {hidden} is not a multiple of {self.keys['heads']} {heads}"
            )
        return max(1, hidden // heads)

    def _kv_heads(self, heads: int) -> int:
        kv_heads = self._optional("kv_heads") or heads
        if heads % kv_heads:
            self.problems.append(
                f"{self.keys['heads']} {heads} is not a multiple of "
                f"{self.keys['kv_heads']} {kv_heads}"
            )
        return kv_heads

    def _ffn(self, hidden: int) -> int:
        multiple: int | None = self.family.get("ffn_multiple")
        if multiple is None:
            self.problems.append(f"{self.keys['ffn']} is missing")
            return 1
        return multiple * hidden

    def _position_rows(self) -> int:
        if self.family["style"]["positions"] != "learned":
            return 0
        extra: int = self.family.get("extra_position_rows", 0)
        return self._size("positions") + extra

    def _rotary_dim(self, head_dim: int) -> int:
        key = self.family.get("rotary_fraction_key")
        if key is None:
            return head_dim
        return int(head_dim * float(self.config.get(key, 1.0)))


def _stated(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without its nulls: null means not stated."""
    return {key: value for key, value in config.items() if value is not None}
