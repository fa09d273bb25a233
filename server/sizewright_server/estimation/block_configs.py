"""Layers of sizes of their own, as `block_configs` lists them (Nemotron-NAS, found by a search).

A layer may have key/value heads and a feed-forward width of its own, or lack either half together
with its norm. Wiring and sizes are those of DeciLMDecoderLayer (vLLM's nemotron_nas.py, and
the modelling code beside the published weights).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias, TypeGuard

Config: TypeAlias = Mapping[str, Any]

KEY = "block_configs"
#: Feed-forward widths are rounded up to a multiple of it.
WIDTH_STEP = 256
#: No published multiple is near it; above it a width is taken for an error.
LARGEST_MULTIPLE = 1024


class Block(NamedTuple):
    """One layer's sizes; 0 where it lacks that half."""

    kv_heads: int
    ffn: int


def ffn_width(multiple: float, hidden: int) -> int:
    """Width of a gated network: two thirds of `multiple` times the hidden width, rounded up."""
    return -(-int(2 * multiple * hidden / 3) // WIDTH_STEP) * WIDTH_STEP


def read_blocks(config: Config, problems: list[str]) -> list[Block]:
    """Every layer's sizes, in order; what is wrong is added to `problems`, by field.

    Where hidden_size, num_attention_heads or num_hidden_layers is no size there are none: who
    reads these keys says so.
    """
    keys = ("hidden_size", "num_attention_heads", "num_hidden_layers")
    if any(not _is_size(config.get(key)) for key in keys):
        return []
    hidden, heads, layers = (int(config[key]) for key in keys)
    stated = config.get(KEY)
    if not isinstance(stated, list):
        problems.append(f"{KEY} must be a list with an entry for each of {layers} layers")
        return []
    if len(stated) != layers:
        problems.append(f"{KEY} has {len(stated)} entries, num_hidden_layers is {layers}")
        return []
    made = []
    for index, entry in enumerate(stated):
        where = f"{KEY}[{index}]"
        attention = _half(entry, "attention", where, problems)
        network = _half(entry, "ffn", where, problems)
        kv_heads = _kv_heads(attention, heads, where, problems) if attention else 0
        ffn = _ffn(network, hidden, where, problems) if network else 0
        made.append(Block(kv_heads, ffn))
    if not problems and not (any(b.kv_heads for b in made) and any(b.ffn for b in made)):
        problems.append(f"{KEY} must have a layer with attention and a layer with an ffn")
    return made


def widest(blocks: list[Block]) -> dict[str, int]:
    """The model's sizes as a whole, by the keys other configurations state them with."""
    return {
        "num_key_value_heads": max((block.kv_heads for block in blocks), default=0) or 1,
        "intermediate_size": max((block.ffn for block in blocks), default=0) or 1,
    }


def _half(entry: Any, name: str, where: str, problems: list[str]) -> Config | None:
    """One half of a layer; None where it is left out or cannot be read."""
    half = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(half, dict):
        problems.append(f"{where}.{name} must be an object")
        return None
    for key in ("no_op", "replace_with_linear"):
        if not isinstance(half.get(key) or False, bool):
            problems.append(f"{where}.{name}.{key} must be true or false, not {half[key]!r}")
            return None
    if half.get("no_op"):
        return None
    for key in ("replace_with_linear", "window_length", "sparsify"):
        if half.get(key):
            problems.append(f"{where}.{name}.{key} is not supported")
            return None
    return half


def _kv_heads(half: Config, heads: int, where: str, problems: list[str]) -> int:
    group = half.get("n_heads_in_group")
    if not _is_size(group) or heads % group:
        problems.append(
            f"{where}.attention.n_heads_in_group must be a divisor of num_attention_heads "
            f"{heads}, not {group!r}"
        )
        return 0
    return heads // group


def _ffn(half: Config, hidden: int, where: str, problems: list[str]) -> int:
    multiple = half.get("ffn_mult")
    number = multiple if isinstance(multiple, int | float) and multiple is not True else 0
    if not 0 < number <= LARGEST_MULTIPLE:
        problems.append(
            f"{where}.ffn.ffn_mult must be above 0 and at most {LARGEST_MULTIPLE}, not {multiple!r}"
        )
        return 0
    return ffn_width(number, hidden)


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31
