"""The smallest change with which a workload fits a machine that it does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations as sets_of
from itertools import product
from math import prod

from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.advice_words import makes_it_fit
from sizewright_server.planning.comparing import CPU_ONLY, saved_bytes
from sizewright_server.planning.machines import check_nodes
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.plan import Advice, Choice, Constraints, worst
from sizewright_server.planning.prices import details_of
from sizewright_server.planning.techniques import Applied, figures, forms
from sizewright_server.planning.variants import SEVERAL, Prepare, combine

#: Changes that are shown, and how many may be needed together.
MOST_SHOWN = 8
MOST_TOGETHER = 3

Picks = tuple[tuple[str, int], ...]


class Fitting:
    """Tries changes of one workload on one kind of machine."""

    def __init__(
        self,
        prepared: Prepared,
        prepare: Prepare,
        target: InstanceType | Machine,
        nodes: int,
        constraints: Constraints,
    ) -> None:
        self.prepared, self.prepare = prepared, prepare
        self.target, self.nodes, self.constraints = target, nodes, constraints
        workload = prepared.workload
        #: Techniques that apply, with the number of their forms. Leaving the GPU unused is none.
        self.forms = {name: len(forms(name, workload)) for name in figures()}
        self.names = [name for name, count in self.forms.items() if count and name != CPU_ONLY]

    def smallest(self) -> Iterator[tuple[tuple[Applied, ...], Prepared, Choice]]:
        """Sets of as few techniques as make it fit, each in its mildest forms, best first."""
        for count in range(1, MOST_TOGETHER + 1):
            found = [made for made in map(self._mildest, sets_of(self.names, count)) if made]
            if found:
                yield from sorted(found, key=lambda made: rank(made[0]))
                return

    def _mildest(self, names: Sequence[str]) -> tuple[tuple[Applied, ...], Prepared, Choice] | None:
        """The set in the mildest forms that fit; None where not even the strongest do.

        Of most techniques a later form needs no more memory, so the last tells.
        """
        last = [
            tuple((name, at) for at in (range(1, n + 1) if name in SEVERAL else (n,)))
            for name, n in ((name, self.forms[name]) for name in names)
        ]
        if not any(self._fits(picks) for picks in product(*last)):
            return None
        every = [[(name, at) for at in range(1, self.forms[name] + 1)] for name in names]
        return next(made for made in map(self._fits, product(*every)) if made)

    def _fits(self, picks: Picks) -> tuple[tuple[Applied, ...], Prepared, Choice] | None:
        workload, steps = combine(self.prepared.workload, picks)
        if len(steps) < len(picks):
            return None  # One undoes the other's ground: that is a smaller set.
        try:
            prepared = self.prepare(workload)
        except UnsupportedWorkload:
            return None
        choice = check_nodes(prepared, self.target, [self.nodes], self.constraints).choice
        if choice is None or worst(tuple(pool.verdict for pool in choice.pools)) != "fits":
            return None
        return steps, prepared, choice


def rank(steps: Sequence[Applied]) -> tuple[int, int, float, list[int]]:
    """Fewest techniques; those that leave results alone; least time; the order of the table."""
    order = list(figures())
    lossy = sum(step.figures.changes_results for step in steps)
    time = prod(step.figures.time[1] for step in steps)
    return len(steps), lossy, time, [order.index(step.name) for step in steps]


def changes_that_fit(
    prepared: Prepared,
    prepare: Prepare,
    target: InstanceType | Machine,
    nodes: int,
    constraints: Constraints,
    at: Layout,
) -> tuple[Advice, ...]:
    """The smallest changes with which a workload fits. `at` is the layout bytes are compared under.

    Fewest techniques, up to three; of as many those that leave results alone, then what takes the
    least time. Nothing smaller fits: every smaller set was tried (held against brute force by a
    test).
    """
    fitting = Fitting(prepared, prepare, target, nodes, constraints)
    made = []
    for steps, new, choice in fitting.smallest():
        ranks = max(target.device_count, 1)
        gpu, host = saved_bytes(prepared, new, at, ranks)
        details = details_of(steps, new, choice.layout, ranks)
        words = f"{makes_it_fit(steps)}."
        made.append(Advice(steps, gpu, host, 0, None, "fits", words, details=details))
    return tuple(made[:MOST_SHOWN])
