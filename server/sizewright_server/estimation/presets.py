"""The bundled public architectures: found by name or alias, read one at a time."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """A public architecture: its configuration, exact parameter count, and where it is from."""

    name: str
    config: dict[str, Any]
    task: str
    parameters: int
    counted_class: str
    verified: str
    source: str


class UnknownPreset(KeyError):
    """No preset has that name. `near` are names that look like it."""

    def __init__(self, name: str, near: tuple[str, ...]) -> None:
        super().__init__(name)
        self.near = near


@cache
def _lines() -> dict[str, tuple[str, str]]:
    """Canonical name and JSON text by lower-case name and alias; nothing is parsed yet."""
    text = resources.files("sizewright_server.estimation").joinpath("data/presets.tsv")
    found: dict[str, tuple[str, str]] = {}
    aliases: dict[str, tuple[str, str]] = {}
    for line in text.read_text(encoding="utf-8").splitlines():
        name, other, document = line.split("\t", 2)
        found[name.lower()] = (name, document)
        for alias in filter(None, other.split(";")):
            aliases.setdefault(alias.strip().lower(), (name, document))
    return aliases | found


@cache
def preset_names() -> tuple[str, ...]:
    """Every preset's own name, in order."""
    return tuple(sorted({name for name, _ in _lines().values()}, key=str.lower))


@lru_cache(maxsize=1024)
def find_preset(name: str) -> Preset:
    """The preset of a name or alias, in any case. Raises UnknownPreset with near names."""
    known = _lines()
    hit = known.get(name.strip().lower())
    if hit is None:
        near = difflib.get_close_matches(name.lower(), known, n=5, cutoff=0.5)
        raise UnknownPreset(name, tuple(dict.fromkeys(known[key][0] for key in near))[:3])
    entry: dict[str, Any] = json.loads(hit[1])
    if entry["counted_class"]:
        # What a configuration leaves open, such as a second head, its class says.
        entry["config"].setdefault("architectures", [entry["counted_class"]])
    return Preset(name=hit[0], **entry)
