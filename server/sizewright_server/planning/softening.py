"""Softening: a plan keeps only the techniques it needs, each in the mildest form that fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.planning.devices import loading_of
from sizewright_server.planning.kinds import KindColumns, NodeKind
from sizewright_server.planning.plan import Choice, Constraints
from sizewright_server.planning.search import Search
from sizewright_server.planning.techniques import Applied, figures, forms
from sizewright_server.planning.variants import Variant, combine

#: A combination prepared, with what is estimated of it already; None where the model forbids it.
VariantOf: TypeAlias = Callable[[AnyWorkload, tuple[Applied, ...]], Variant | None]


class Softener:
    """Softens the choices of one question; what served one kind of node is tried first on others.

    `workload` is the request as it stands.
    """

    def __init__(
        self, workload: AnyWorkload, variant_of: VariantOf, constraints: Constraints
    ) -> None:
        self._workload, self._variant_of, self._constraints = workload, variant_of, constraints
        self._served: list[list[tuple[str, int]]] = []
        self._done: dict[tuple[NodeKind, int, tuple[str, ...]], Choice] = {}
        self._variants: dict[tuple[tuple[str, int], ...], Variant | None] = {}

    def softened(self, choice: Choice, kind: NodeKind) -> Choice:
        """The choice with techniques none of which could go, or be milder, on its nodes."""
        names = tuple(step.name for step in choice.variant.steps)
        key = (kind, choice.nodes, names)
        if key not in self._done:
            self._done[key] = self._soften(choice, kind, names)
        return self._done[key]

    def _soften(self, choice: Choice, kind: NodeKind, names: tuple[str, ...]) -> Choice:
        if not names:
            return choice
        picked, best = self._leave_out(*self._first(choice, kind, names), kind, choice.nodes)
        kept = [pick for pick in picked if pick[1]]
        if kept not in self._served:
            self._served.append(kept)
        return best

    def _first(
        self, choice: Choice, kind: NodeKind, names: tuple[str, ...]
    ) -> tuple[list[tuple[str, int]], Choice]:
        """What served another kind where it serves this one, or else the choice's own."""
        for served in self._served:
            if {name for name, _ in served} <= set(names):
                found = self._fits(served, kind, choice.nodes)
                if found is not None:
                    # A kind with more room may need even less.
                    return list(served), found
        return [(name, len(forms(name, self._workload)) or 1) for name in names], choice

    def _leave_out(
        self, picked: list[tuple[str, int]], best: Choice, kind: NodeKind, nodes: int
    ) -> tuple[list[tuple[str, int]], Choice]:
        """Leaves out what is not needed or takes it milder, the costliest technique first."""
        for place in reversed(range(len(picked))):
            behind = picked[place + 1 :]
            if self._all_go(picked[: place + 1]):
                rest = [(name, 0) for name, _ in picked[: place + 1]] + behind
                found = self._fits(rest, kind, nodes)
                if found is not None:
                    return rest, found
            name, strongest = picked[place]
            for milder in range(strongest):
                trial = [*picked[:place], (name, milder), *behind]
                found = self._fits(trial, kind, nodes)
                if found is not None:
                    picked, best = trial, found
                    break
        return picked, best

    def _all_go(self, picked: list[tuple[str, int]]) -> bool:
        """Whether what fits without all of these shows that one after the other can go.

        Leaving out the last, then the one before: what is left has the others back, which must
        not add memory.
        """
        others = [name for name, form in picked[:-1] if form]
        return bool(others and picked[-1][1]) and all(figures()[name].never_adds for name in others)

    def _fits(self, picked: list[tuple[str, int]], kind: NodeKind, nodes: int) -> Choice | None:
        """The choice on one kind and count of nodes; None where it does not fit."""
        variant = self._variant(tuple(pick for pick in picked if pick[1]))
        if variant is None:
            return None
        one, loading = np.ones(1, dtype=np.bool_), loading_of(self._workload)
        search = Search(KindColumns([kind]), self._constraints, one, loading)
        search.add(0, variant, [nodes])
        found = search.first_fit()
        return search.choice(found, 0) if found.found[0] else None

    def _variant(self, picked: tuple[tuple[str, int], ...]) -> Variant | None:
        if picked not in self._variants:
            self._variants[picked] = self._variant_of(*combine(self._workload, picked))
        return self._variants[picked]
