"""Who competes for a workload: the eligible offers, and behind them the asker's machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sizewright_catalog.catalog import Ints
from sizewright_catalog.values import Machine, Offer
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.planning.conditions import NodeConditions
from sizewright_server.planning.devices import lacks, native_features, uses_gpu
from sizewright_server.planning.index import OfferIndex
from sizewright_server.planning.kinds import NodeKind, node_kind

#: Costs more than any machine: nobody offers this kind.
UNOFFERED = 2**52
#: No competitor.
NOBODY = -1


class Competitors:
    """The offers, cheapest first, as positions in the index; then the machines.

    A competitor is a number: of an offer its place among the offers, of a machine what follows.
    `kind` is the kind of node of each offer, `machine_kinds` of each machine. Over kinds are
    `wanted` (whether anybody offers it), `offer_counts`, and `first`, the cheapest competitor.
    """

    def __init__(
        self,
        index: OfferIndex,
        positions: Ints,
        workload: AnyWorkload,
        machines: Sequence[Machine],
        conditions: NodeConditions,
    ) -> None:
        self._index, self._positions = index, positions
        known, kind_of_offer = index.kinds(conditions)
        owned = [(machine, _kind(machine, workload, conditions)) for machine in machines]
        self.machines = [machine for machine, kind in owned if kind is not None]
        mine = [kind for _, kind in owned if kind is not None]
        self.kinds = known.extended(mine)
        self.offer_count = len(positions)
        self.kind: Ints = kind_of_offer[positions]
        first = len(known.kinds)
        self.machine_kinds: Ints = np.arange(first, first + len(mine), dtype=np.int64)
        self.offer_counts = np.bincount(self.kind, minlength=len(self.kinds.kinds))
        self.first = np.full(len(self.kinds.kinds), NOBODY, dtype=np.int64)
        # Of several numbers for one kind the last one written stays: the cheapest offer's.
        self.first[self.kind[::-1]] = np.arange(self.offer_count - 1, -1, -1)
        self.first[self.machine_kinds] = self.offer_count + np.arange(len(mine))
        prices = [machine.cost_per_hour_nanos_usd for machine in self.machines]
        self.machine_nanos = np.array(prices, dtype=np.int64)
        self.wanted = self.first >= 0
        rented = np.nonzero(self.wanted[:first])[0]
        self.least_nanos = np.full(len(self.kinds.kinds), UNOFFERED, dtype=np.int64)
        self.least_nanos[rented] = self.offer_nanos(self.first[rented])
        self.least_nanos[self.machine_kinds] = self.machine_nanos

    def offer_nanos(self, numbers: Ints) -> Ints:
        """Price per hour of one node of some offers."""
        prices: Ints = self._index.nanos[self._positions[numbers]]
        return prices

    def counts_among(self, end: int) -> Ints:
        """How many of the first `end` offers are of each kind."""
        if end == self.offer_count:
            return self.offer_counts
        return np.bincount(self.kind[:end], minlength=len(self.kinds.kinds))

    def kind_of(self, number: int) -> int:
        """The kind of node of a competitor."""
        if self.is_offer(number):
            return int(self.kind[number])
        return int(self.machine_kinds[number - self.offer_count])

    def offers_up_to(self, nanos: int) -> int:
        """How many offers cost at most so much for a node: the first ones."""
        end = np.searchsorted(self._index.nanos, nanos, side="right")
        return int(np.searchsorted(self._positions, end))

    def is_offer(self, number: int) -> bool:
        """Whether a competitor is rented."""
        return number < self.offer_count

    def offer(self, number: int) -> Offer:
        """What is rented."""
        return self._index.offer(int(self._positions[number]))

    def machine(self, number: int) -> Machine:
        """What is owned."""
        return self.machines[number - self.offer_count]


def _kind(machine: Machine, workload: AnyWorkload, conditions: NodeConditions) -> NodeKind | None:
    """The kind of an owned machine; None when the workload does not run on it at all."""
    kind = node_kind(machine, conditions, gpu=uses_gpu(workload))
    if isinstance(kind, str):
        return None
    if kind.device is not None and lacks(kind.device, native_features(workload)):
        return None
    return replace(kind, count=machine.count)
