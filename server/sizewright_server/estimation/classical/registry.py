"""Which estimators are known, and the formula of each."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import TypeAlias

from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.parts import Steps
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation

Formula: TypeAlias = Callable[[FitJob], Steps]

LIBRARIES = ("scikit-learn", "xgboost", "lightgbm")
NEAR_NAMES = 5

_FORMULAS: dict[tuple[str, str], Formula] = {}


def estimator(library: str, *class_names: str) -> Callable[[Formula], Formula]:
    """Registers a formula for classes of a library."""

    def register(formula: Formula) -> Formula:
        for name in class_names:
            _FORMULAS[library, name] = formula
        return formula

    return register


def formula_of(library: str, class_name: str) -> Formula:
    """The formula of a class. Raises UnsupportedWorkload with near names."""
    found = _FORMULAS.get((library, class_name))
    if found is not None:
        return found
    if library not in LIBRARIES:
        raise UnsupportedWorkload(
            Violation(
                "workload.model.estimator.library",
                f"must be one of {', '.join(LIBRARIES)}, not {library!r}",
            )
        )
    near = get_close_matches(class_name, known_classes(library), NEAR_NAMES)
    hint = f"; near: {', '.join(near)}" if near else ""
    raise UnsupportedWorkload(
        Violation(
            "workload.model.estimator.class_name",
            f"no estimator {class_name!r} of {library} is known{hint}",
        )
    )


def known_classes(library: str) -> tuple[str, ...]:
    """The classes of a library that are known, sorted."""
    return tuple(sorted(name for owner, name in _FORMULAS if owner == library))


def steps_of(job: FitJob) -> Steps:
    """What a job's estimator holds. Raises UnsupportedWorkload."""
    return formula_of(job.library, job.class_name)(job)
