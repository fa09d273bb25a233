"""Memory techniques: what each makes of a workload, and what it costs.

A technique is a function from a workload to the forms it may take, mildest first, each with the
fields it changes. It yields nothing where it does not apply. Its figures are data
(`data/techniques.json`); what it saves is always found by estimating the changed workload.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.planning.changes import Change, Rule
from sizewright_server.planning.checkpoint_techniques import CHECKPOINTS
from sizewright_server.planning.data_techniques import DATA
from sizewright_server.planning.estimator_techniques import ESTIMATORS
from sizewright_server.planning.model_techniques import MODEL
from sizewright_server.planning.placement_techniques import PLACEMENT
from sizewright_server.planning.processor_techniques import PROCESSORS
from sizewright_server.planning.serving_techniques import SERVING
from sizewright_server.planning.training_techniques import TRAINING

RULES: dict[str, Rule] = {
    **TRAINING,
    **PLACEMENT,
    **CHECKPOINTS,
    **MODEL,
    **SERVING,
    **DATA,
    **ESTIMATORS,
    **PROCESSORS,
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a technique; `time` is relative to without: low, best, high.

    `never_adds`: no pool of any layout needs more memory with it than without. `searched`: "exact"
    and "all" allow it; the others are taken where they are named. `titles` are its names for
    people, by the value its first change leads to; "*" for any other.
    """

    titles: Mapping[str, str]
    searched: bool
    changes_results: bool
    never_adds: bool
    time: tuple[float, float, float]
    cost: str
    source: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A technique as it was applied to a workload."""

    name: str
    changes: tuple[Change, ...]

    def __hash__(self) -> int:
        # Combinations are sets of hundreds of these, and seldom hold two forms of one technique.
        return hash(self.name)

    @property
    def figures(self) -> Figures:
        """What it costs."""
        return figures()[self.name]

    @property
    def title(self) -> str:
        """Its name as people write it: "LoRA", "8-bit AdamW"."""
        titles = self.figures.titles
        return titles.get(self.changes[0].after if self.changes else "*", titles["*"])


@cache
def figures() -> dict[str, Figures]:
    """Every technique, mildest first."""
    table: dict[str, Any] = data_of("sizewright_server.planning", "techniques")
    return {
        name: Figures(
            _titles(entry["title"]),
            bool(entry.get("searched", True)),
            bool(entry["changes_results"]),
            bool(entry["never_adds"]),
            _three(entry["time"]),
            entry["cost"],
            entry["source"],
        )
        for name, entry in table.items()
        if not name.startswith("_")
    }


def _titles(entry: str | dict[str, str]) -> Mapping[str, str]:
    return {"*": entry} if isinstance(entry, str) else entry


def _three(values: list[float]) -> tuple[float, float, float]:
    low, best, high = values
    return low, best, high


def forms(name: str, workload: AnyWorkload) -> list[tuple[AnyWorkload, Applied]]:
    """The forms a technique may give a workload, mildest first; none where it does not apply."""
    return [(made, Applied(name, changes)) for made, changes in RULES[name](workload)]
