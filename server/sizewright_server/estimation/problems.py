"""What the estimator refuses, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field: its path, and a sentence saying what is wrong and what would be right."""

    field: str
    description: str


class UnsupportedWorkload(ValueError):
    """A workload that cannot be estimated, with every reason at once."""

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations
