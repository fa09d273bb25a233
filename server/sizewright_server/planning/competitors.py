"""Who competes for a workload: the eligible offers, and behind them the asker's machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sizewright_catalog.catalog import Ints
from sizewright_catalog.values import Machine, Offer
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.planning.conditions import conditions_of
from sizewright_server.planning.devices import lacks, native_features, uses_gpu
from sizewright_server.planning.index import OfferIndex
from sizewright_server.planning.kinds import NodeKind
from sizewright_server.planning.machines import node_kind

#: Costs more than any machine: nobody offers this kind.
UNOFFERED = 2**62


class Competitors:
    """Columns over offers and machines: price per node, kind of node, rank of the name.

    `wanted` and `least_nanos` are over kinds: whether anybody offers it, and the lowest price.
    """

    def __init__(
        self,
        index: OfferIndex,
        positions: Ints,
        workload: AnyWorkload,
        machines: Sequence[Machine],
    ) -> None:
        self._index, self._positions = index, positions
        known, kind_of_offer = index.kinds(conditions_of(workload.host))
        owned = [(machine, _kind(machine, workload)) for machine in machines]
        self._machines = [machine for machine, kind in owned if kind is not None]
        mine = [kind for _, kind in owned if kind is not None]
        self.kinds = known.extended(mine)
        self.offer_count = len(positions)
        first = len(known.kinds)
        self.kind = np.concatenate(
            (kind_of_offer[positions], np.arange(first, first + len(mine), dtype=np.int64))
        )
        prices = [machine.cost_per_hour_nanos_usd for machine in self._machines]
        self.nanos = np.concatenate((index.nanos[positions], np.array(prices, dtype=np.int64)))
        # Of equals the machine that is owned comes first.
        before = np.arange(-len(mine), 0, dtype=np.int64)
        self.rank = np.concatenate((index.order[positions], before))
        self.wanted = np.zeros(len(self.kinds.kinds), dtype=np.bool_)
        self.wanted[self.kind] = True
        self.least_nanos = np.full(len(self.kinds.kinds), UNOFFERED, dtype=np.int64)
        np.minimum.at(self.least_nanos, self.kind, self.nanos)

    def cheapest_of_kind(self) -> Ints:
        """One competitor of each wanted kind: of the cheapest the first by name."""
        cheap = np.nonzero(self.nanos == self.least_nanos[self.kind])[0]
        cheap = cheap[np.lexsort((self.rank[cheap], self.kind[cheap]))]
        first = np.diff(self.kind[cheap], prepend=-1) > 0
        found: Ints = cheap[first]
        return found

    def is_offer(self, at: int) -> bool:
        """Whether a competitor is rented."""
        return at < self.offer_count

    def offer(self, at: int) -> Offer:
        """What is rented."""
        return self._index.catalog.offer(int(self._index.offers[self._positions[at]]))

    def machine(self, at: int) -> Machine:
        """What is owned."""
        return self._machines[at - self.offer_count]


def _kind(machine: Machine, workload: AnyWorkload) -> NodeKind | None:
    """The kind of an owned machine; None when the workload does not run on it at all."""
    kind = node_kind(machine, conditions_of(workload.host), gpu=uses_gpu(workload))
    if isinstance(kind, str):
        return None
    if kind.device is not None and lacks(kind.device, native_features(workload)):
        return None
    return replace(kind, count=machine.count)
