"""Variants: the workload with techniques applied, prepared for estimation.

The space is every combination of the allowed techniques. Most techniques never add memory
(`never_adds` in `data/techniques.json`, held by a test), so a combination without one of them fits
only where the same combination with it fits: the search needs only those with all of them, and
softens what it found afterwards (`softening.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cache
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
    level: list[Combination] = [(workload, ())]
    for name in figures():
        if name in allowed:
            # What combinations have in common of the techniques so far is applied once.
            numbers = _choices(name, workload)
            level = [next_one for one in level for next_one in _with(one, name, numbers)]
    made = {steps: (changed, steps) for changed, steps in level if steps}
    return sorted(made.values(), key=lambda combination: _harm(combination[1]), reverse=True)


def _with(one: Combination, name: str, numbers: Sequence[int]) -> Iterator[Combination]:
    """A combination with a further technique in each of these forms; see `combine`."""
    workload, steps = one
    possible = forms(name, workload) if any(numbers) else []
    for number in dict.fromkeys(min(number, len(possible)) for number in numbers):
        if number:
            changed, applied = possible[number - 1]
            yield changed, (*steps, applied)
        else:
            yield one


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


def weaker(steps: Set[Applied], than: Set[Applied]) -> bool:
    """Whether a combination is another with some techniques left out, but for those that move
    memory from one pool to another."""
    return steps <= than and not any(step.name in SEVERAL for step in than - steps)


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
    lossy = sum(step.figures.changes_results for step in steps)
    return lossy, len(steps), [_order()[step.name] for step in steps]


@cache
def _order() -> dict[str, int]:
    return {name: place for place, name in enumerate(figures())}
