"""How model families differ, as far as serving cares: entries of `data/families.json`.

A switch of an entry is true, false, or the configuration's own key.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.serving.config import Settings


@dataclass(frozen=True, slots=True)
class Family:
    """One family.

    `mixer` names the pattern of token mixers (`layer_kinds`), `norms` counts vectors of the hidden
    width in each layer. `vision` names the tower of a multimodal family.
    """

    mixer: str = "attention"
    gated: bool = True
    norms: int = 2
    norm_bias: bool = False
    final_norm: bool = True
    embedding_norm: bool = False
    tied: bool = False
    learned_positions: bool = False
    extra_positions: int = 0
    ffn_multiple: int = 0
    ffn_divisor: int = 1
    sparse: bool = False
    shared_expert_key: str | None = None
    dense_width_key: str = "ffn"
    rotary_key: str | None = None
    rotary_tables: int = 1
    vision: str | None = None
    #: Whether transformers keeps a causal mask of positions x positions booleans: once, or in each
    #: layer.
    mask_buffer: str | None = None
    text: dict[str, Any] = field(default_factory=dict)
    switches: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)

    def flag(self, name: str, settings: Settings) -> bool:
        """A switch: fixed by the family, or read from the key it names."""
        value = self.switches.get(name, False)
        return settings.flag(value) if isinstance(value, str) else bool(value)

    def words(self, name: str, settings: Settings) -> str:
        """A choice: fixed, or {key: word} where the configuration's switch is on."""
        value = self.text.get(name, "none")
        if isinstance(value, str):
            return value
        return next((word for key, word in value.items() if settings.flag(key)), "none")


@cache
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = data_of("sizewright_server.estimation.serving", "families")
    return {name: entry for name, entry in table.items() if not name.startswith("_")}


@cache
def family_of(model_type: str) -> Family:
    """The family of a model_type. Raises KeyError for an unknown one."""
    entry = dict(_table()[model_type])
    base = entry.pop("like", None)
    if base is not None:
        parent = dict(_table()[base])
        for name in ("switches", "text", "defaults"):
            entry[name] = {**parent.get(name, {}), **entry.get(name, {})}
        entry = {**parent, **entry}
        entry.pop("like", None)
    return Family(**entry)


def is_served(model_type: object) -> bool:
    """Whether there is a family of that model_type."""
    return str(model_type) in _table()


def family_or_refusal(model_type: object, where: str) -> Family:
    """The family. Raises UnsupportedWorkload, naming near ones, for an unknown model_type."""
    known = _table()
    if str(model_type) in known:
        return family_of(str(model_type))
    near = difflib.get_close_matches(str(model_type), known, n=3)
    hint = f"; near: {', '.join(near)}" if near else ""
    text = f"model_type {str(model_type)!r} cannot be served yet{hint}; known: "
    raise UnsupportedWorkload(Violation(where, text + ", ".join(sorted(known))))
