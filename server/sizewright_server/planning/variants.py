"""Variants: the workload with techniques applied, prepared for estimation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.techniques import Applied, figures, forms

Prepare: TypeAlias = Callable[[AnyWorkload], Prepared]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run the workload. `steps` is empty for the request as it stands."""

    prepared: Prepared
    steps: tuple[Applied, ...] = ()

    def time_factor_without(self, counted: str) -> tuple[float, float, float]:
        """Time of a step relative to the request as it stands: low, best, high.

        The technique `counted` is left out: its time is counted elsewhere.
        """
        low = best = high = 1.0
        for step in self.steps:
            if step.name != counted:
                factor = step.figures.time
                low, best, high = low * factor[0], best * factor[1], high * factor[2]
        return low, best, high


Combination: TypeAlias = tuple[AnyWorkload, tuple[Applied, ...]]


def combinations(workload: AnyWorkload, allowed: Sequence[str]) -> list[Combination]:
    """Every combination of allowed techniques but none, the mildest first.

    Milder is: fewer techniques that change results, then fewer techniques, then by their order in
    the table and by how far each goes.
    """
    order = list(figures())
    names = sorted(set(allowed), key=order.index)
    depths = [range(len(forms(name, workload)) + 1) for name in names]
    made = []
    for depth in product(*depths):
        if not any(depth):
            continue
        used = [name for name, level in zip(names, depth, strict=True) if level]
        lossy = sum(figures()[name].changes_results for name in used)
        made.append((lossy, len(used), [order.index(name) for name in used], depth))
    found = (_combined(workload, names, depth) for *_, depth in sorted(made))
    return [combination for combination in found if combination is not None]


def _combined(
    workload: AnyWorkload, names: Sequence[str], depth: Sequence[int]
) -> Combination | None:
    """The techniques one after another; None where one leaves nothing for the next to do."""
    made, steps = workload, []
    for name, level in zip(names, depth, strict=True):
        if not level:
            continue
        possible = forms(name, made)
        if len(possible) < level:
            return None
        made, applied = possible[level - 1]
        steps.append(applied)
    return made, tuple(steps)


def single_steps(workload: AnyWorkload) -> Iterator[Combination]:
    """Every technique alone, in each of its forms, mildest first."""
    for name in figures():
        for made, applied in forms(name, workload):
            yield made, (applied,)
