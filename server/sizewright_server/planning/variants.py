"""Variants: the workload with techniques applied, prepared for estimation.

The space is every combination of the allowed techniques. Most techniques never add memory
(`never_adds` in `data/techniques.json`, held by a test), so a combination without one of them fits
only where the same combination with it fits: the search needs only those with all of them, and
softens what it found afterwards (`softening.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.techniques import Applied, figures, forms

Prepare: TypeAlias = Callable[[AnyWorkload], Prepared]
Combination: TypeAlias = tuple[AnyWorkload, tuple[Applied, ...]]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run the workload. `steps` is empty for the request as it stands."""

    prepared: Prepared
    steps: tuple[Applied, ...] = ()

    def time_factor_without(self, counted: Collection[str]) -> tuple[float, float, float]:
        """Time of a step relative to the request as it stands: low, best, high.

        The techniques `counted` are left out: their time is counted elsewhere.
        """
        low = best = high = 1.0
        for step in self.steps:
            if step.name not in counted:
                factor = step.figures.time
                low, best, high = low * factor[0], best * factor[1], high * factor[2]
        return low, best, high


def strongest(workload: AnyWorkload, allowed: Sequence[str]) -> list[Combination]:
    """The combinations that no other needs less memory than; none where nothing applies.

    All techniques that never add memory, each as far as it goes, with every choice of the others;
    first with all of them.
    """
    names = [name for name in figures() if name in allowed]
    choices = [_choices(name, workload) for name in names]
    made = {}
    for picked in product(*choices):
        combined = combine(workload, list(zip(names, picked, strict=True)))
        if combined[1]:
            made[combined[1]] = combined
    return sorted(made.values(), key=lambda combination: _harm(combination[1]), reverse=True)


def combine(workload: AnyWorkload, picked: Sequence[tuple[str, int]]) -> Combination:
    """Techniques one after another, each in its form of that number; 0 leaves it out.

    What does not apply after the others is left out; of fewer forms the strongest is taken.
    """
    made, steps = workload, []
    for name, number in picked:
        possible = forms(name, made) if number else []
        if possible:
            made, applied = possible[min(number, len(possible)) - 1]
            steps.append(applied)
    return made, tuple(steps)


def weaker(steps: Sequence[Applied], than: Sequence[Applied]) -> bool:
    """Whether a combination is another with some techniques left out, but for those that move
    memory from one pool to another."""
    left_out = set(than) - set(steps)
    return set(steps) <= set(than) and not any(step.name in SEVERAL for step in left_out)


def single_steps(workload: AnyWorkload) -> Iterator[Combination]:
    """Every technique alone, in each of its forms, mildest first."""
    for name in figures():
        for made, applied in forms(name, workload):
            yield made, (applied,)


def _choices(name: str, workload: AnyWorkload) -> tuple[int, ...]:
    """Numbers of the forms to try: the strongest alone, and none of it where it may add memory."""
    most = len(forms(name, workload))
    if figures()[name].never_adds or not most:
        return (most,)
    # Among forms of one technique the last needs least; only using it at all can add memory.
    return (0, most) if name not in SEVERAL else tuple(range(most + 1))


#: Techniques whose forms differ in where they take memory from: no form needs less than another.
SEVERAL = frozenset({"sharding", "optimizer-offload", "nvme-offload", "quantized-weights"})


def _harm(steps: Sequence[Applied]) -> tuple[int, int, list[int]]:
    """Fewer techniques that change results first, then fewer techniques, then the table's order."""
    order = list(figures())
    lossy = sum(step.figures.changes_results for step in steps)
    return lossy, len(steps), [order.index(step.name) for step in steps]
