"""The gate's limits, from its data file."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gate lets through; `data/gate.json` says where each figure is from.

    Jumps and bands are factors up or down, tolerances and shares are parts of one.
    """

    least_dollars_per_hour: float
    most_dollars_per_hour: float
    device_memory_tolerance: float
    host_memory_tolerance: float
    list_price_jump: float
    spot_price_jump: float
    median_jump: float
    fewest_for_median: float
    smallest_share_left: float
    fewest_for_share: float
    device_price_band: float
    held_days: float


@cache
def limits() -> Limits:
    """The limits. Raises KeyError or ValueError when one is missing or states no source."""
    text = resources.files("sizewright_catalog").joinpath("data/gate.json")
    table = json.loads(text.read_text(encoding="utf-8"))
    values = {}
    for field in fields(Limits):
        entry = table[field.name]
        if not entry["source"] or not entry["value"] > 0:
            raise ValueError(f"gate.json: {field.name} must be above 0 and state its source")
        values[field.name] = float(entry["value"])
    return Limits(**values)
