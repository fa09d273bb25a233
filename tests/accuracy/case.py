"""What the mappers of every kind of case share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sizewright_server.estimation.presets import UnknownPreset, find_preset
from sizewright_server.estimation.workload import ModelSource, Workload

Case = dict[str, Any]


class Unmapped(Exception):
    """A case that cannot be mapped, and why."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A workload, the GPU it ran on where that is stated, and its ranks per node."""

    workload: Workload
    device: str | None
    ranks_per_node: int


def word(table: dict[str, str], value: Any, kind: str) -> Any:
    """The project's word for a case's. Raises Unmapped."""
    if value not in table:
        raise Unmapped(f"{kind} {value!r} is not built yet")
    return table[value]


def preset_source(work: Case) -> ModelSource:
    """A preset of the model's name, with the stated sizes where they differ."""
    name = str(work.get("model"))
    try:
        preset = find_preset(name)
    except UnknownPreset as unknown:
        raise Unmapped(f"model {name!r} is no preset") from unknown
    return ModelSource(preset.config, preset=preset.name)
