"""The words of every part: its formula, its source, how sure it is; and the resident parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.memory import ByteRange, Confidence, Part

if TYPE_CHECKING:
    from sizewright_server.estimation.estimator import PreparedWorkload
    from sizewright_server.estimation.inference import InferenceGroup
    from sizewright_server.estimation.training import TrainingGroup


@dataclass(frozen=True, slots=True)
class PartText:
    """What is said of a part."""

    formula: str
    source: str
    confidence: Confidence
    group: str = ""


@cache
def _texts() -> dict[str, PartText]:
    table = data_of("sizewright_server.estimation", "parts")
    return {name: PartText(**entry) for name, entry in table.items() if not name.startswith("_")}


PART_TEXTS = _texts()


def resident_parts(prepared: PreparedWorkload, group: TrainingGroup | InferenceGroup) -> list[Part]:
    """What is there from the first step to the last."""
    return [
        Part(
            name,
            ByteRange(size, size, size),
            PART_TEXTS[name].formula,
            numbers,
            PART_TEXTS[name].source,
            PART_TEXTS[name].confidence,
        )
        for name, size, numbers in group.resident_numbers(
            prepared.parameter_count, prepared.trainable_parameter_count
        )
        if size
    ]
