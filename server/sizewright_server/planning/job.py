"""The whole job of a workload: how much there is to do, and speeds somebody measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Job:
    """Exactly one of tokens, samples and runtime_hours is set.

    `measured` is tokens (samples for models without tokens) per second and GPU by device name.
    """

    tokens: int | None = None
    samples: int | None = None
    runtime_hours: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
