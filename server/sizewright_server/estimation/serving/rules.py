"""An engine's numbers by version: `data/engines.json`, checked when they are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.memory import ByteRange

Version = tuple[int, ...]

_UNITS = {"MiB": 2**20, "bytes": 1}
#: How much wider every bound gets for a version newer than the known rules: bytes moved by up to
#: this share of the distance to nothing when vLLM 0.8, 0.17 and 0.21 changed their rules.
NEWER_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Rule:
    """One number with its bounds."""

    value: float
    low: float
    high: float
    unit: str
    source: str

    def size(self, times: float = 1) -> ByteRange:
        """`times` the number, in bytes."""
        scale = _UNITS[self.unit] * times
        return ByteRange(int(self.low * scale), int(self.value * scale), int(self.high * scale))

    @property
    def on(self) -> bool:
        """A flag's value."""
        return self.value >= 0.5


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one engine at one version; None is the newest that is known."""

    engine: str
    version: Version | None
    newest: Version
    oldest: Version

    def rule(self, name: str) -> Rule:
        """The entry that applies, wider where the version is newer than what is known."""
        return _applying(self, name)

    @property
    def is_newer(self) -> bool:
        """Whether the version is beyond the known rules."""
        return self.version is not None and self.version[: len(self.newest)] > self.newest

    @property
    def is_older(self) -> bool:
        """Whether the version is before the known rules."""
        return self.version is not None and self.version < self.oldest


@lru_cache(maxsize=1024)
def _applying(rules: Rules, name: str) -> Rule:
    entries = _entries(rules.engine, name)
    version = rules.version or rules.newest
    made = next((rule for start, rule in reversed(entries) if start <= version), entries[0][1])
    if not rules.is_newer or made.unit not in _UNITS:
        return made
    low, high = made.low * (1 - NEWER_SHARE), made.high * (1 + NEWER_SHARE)
    return Rule(made.value, low, high, made.unit, made.source)


def parse_version(text: str) -> Version | None:
    """The numbers of a version such as "0.8.5.dev169" or "v0.19"; None when it has none."""
    found = re.match(r"\s*v?(\d+)((?:\.\d+)*)", text)
    if not found:
        return None
    numbers = [int(found.group(1)), *(int(n) for n in found.group(2).split(".") if n)]
    return tuple(numbers[:3])


@lru_cache(maxsize=1024)
def rules_of(engine: str, version: Version | None) -> Rules:
    """The rules of an engine. Raises KeyError for an engine without a table."""
    table = _table()[engine]
    newest, oldest = parse_version(table["newest"]), parse_version(table["oldest"])
    if newest is None or oldest is None:
        raise ValueError(f"engines.json: {engine} has no version range")
    return Rules(engine, version, newest, oldest)


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = data_of("sizewright_server.estimation.serving", "engines")
    return table


@cache
def _entries(engine: str, name: str) -> list[tuple[Version, Rule]]:
    """Every entry of a rule with the version it starts at, in order."""
    stated = _table()[engine][name]
    made = []
    for entry in stated["entries"]:
        value = float(entry["value"])
        low, high = float(entry.get("low", value)), float(entry.get("high", value))
        if not low <= value <= high:
            raise ValueError(f"engines.json: {engine} {name} is not low <= value <= high")
        start = parse_version(entry["from"])
        if start is None:
            raise ValueError(f"engines.json: {engine} {name} starts at no version")
        made.append((start, Rule(value, low, high, stated["unit"], entry["source"])))
    return sorted(made, key=lambda pair: pair[0])
