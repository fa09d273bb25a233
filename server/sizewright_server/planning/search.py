"""The search: for every kind of node the fewest that fit, and the layout they fit with.

Exact: a layout's memory depends on GPU counts and the device, never on the offer, so each kind of
node (GPUs, device, GPU and host memory) is decided once. More of the same node only costs more, so
its fewest nodes are its cheapest plan; offers are then sorted by price times nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.kinds import KindColumns
from sizewright_server.planning.needs import Candidates, Needs
from sizewright_server.planning.plan import Constraints, PoolFit, verdict_of

LOW, BEST, HIGH = 0, 1, 2
#: Bytes no machine lacks: nothing was tried.
NOTHING_TRIED = 2**62


@dataclass(frozen=True, slots=True)
class Choice:
    """Nodes and layout of a kind of node, and its pools against their capacity."""

    nodes: int
    layout: Layout
    pools: tuple[PoolFit, ...]


class Decisions:
    """Per kind of node: nodes and layout row of the fewest that fit, that are tight, and nearest.

    Nodes 0 means none. `lack_bytes` is what the nearest one lacks; `failed_gpu` says in which pool.
    """

    def __init__(
        self,
        needs: Needs,
        kinds: KindColumns,
        constraints: Constraints,
        wanted: NDArray[np.bool_] | None = None,
    ) -> None:
        self.needs, self.kinds, self.constraints = needs, kinds.kinds, constraints
        count = len(self.kinds)
        self._columns = kinds
        self._wanted = np.ones(count, dtype=np.bool_) if wanted is None else wanted
        keep = 1 - constraints.headroom
        self._gpu_limit = (kinds.gpu_usable_bytes * keep).astype(np.int64)
        self._host_limit = (kinds.host_usable_bytes * keep).astype(np.int64)
        self.fit_nodes, self.fit_row = np.zeros((2, count), dtype=np.int64)
        self.tight_nodes, self.tight_row = np.zeros((2, count), dtype=np.int64)
        self.near_nodes, self.near_row = np.zeros((2, count), dtype=np.int64)
        self.lack_bytes = np.full(count, NOTHING_TRIED, dtype=np.int64)
        self.failed_gpu = np.zeros(count, dtype=np.bool_)
        for candidates in sorted(needs.candidates, key=lambda c: c.nodes):
            self._try(candidates)

    def fits(self, kind: int) -> Choice:
        """The choice of a kind that fits."""
        return self._choice(kind, int(self.fit_nodes[kind]), int(self.fit_row[kind]))

    def tight(self, kind: int) -> Choice:
        """The choice of a kind that is tight."""
        return self._choice(kind, int(self.tight_nodes[kind]), int(self.tight_row[kind]))

    def nearest(self, kind: int) -> Choice:
        """The choice of a kind that lacks least."""
        return self._choice(kind, int(self.near_nodes[kind]), int(self.near_row[kind]))

    def _try(self, candidates: Candidates) -> None:
        """Every layout of one node count, on every kind of node with that many GPUs."""
        gpus = candidates.per_node * candidates.nodes
        most = self.constraints.max_gpus
        if gpus < self.constraints.min_gpus or (most is not None and gpus > most):
            return
        which = np.nonzero(
            self._wanted
            & (self._columns.per_node == candidates.per_node)
            & (self._columns.count >= candidates.nodes)
            & (self._columns.whole | (gpus == 1))
            & (self.fit_nodes == 0)
        )[0]
        if not len(which):
            return
        lack, gpu_lack = self._lack(candidates, which, HIGH)
        best_lack, _ = self._lack(candidates, which, BEST)
        row = lack.argmin(axis=0)
        least = lack[row, np.arange(len(which))]
        nearer = least < self.lack_bytes[which]
        self._note(which[nearer], row[nearer], least[nearer], candidates, gpu_lack[:, nearer])
        self._first(which, lack <= 0, candidates, self.fit_nodes, self.fit_row)
        self._first(which, best_lack <= 0, candidates, self.tight_nodes, self.tight_row)

    def _lack(self, candidates: Candidates, which: Column, bound: int) -> tuple[Column, Column]:
        """Bytes lacking in the worst pool and on the GPU: a row per layout, a column per kind."""
        reserved, count, larger, host = self.needs.bound(
            candidates.rows, candidates.per_node, bound
        )
        none, pair, group = (self._columns.overhead[i, bound, which] for i in range(3))
        each = np.where(larger[:, None], group, pair)
        gpu = reserved[:, None] + none + count[:, None] * each - self._gpu_limit[which]
        return np.maximum(gpu, host[:, None] - self._host_limit[which]), gpu

    def _note(
        self, which: Column, row: Column, lack: Column, candidates: Candidates, gpu_lack: Column
    ) -> None:
        self.lack_bytes[which] = lack
        self.near_nodes[which] = candidates.nodes
        self.near_row[which] = candidates.rows.start + row
        self.failed_gpu[which] = gpu_lack[row, np.arange(len(row))] > 0

    def _first(
        self,
        which: Column,
        good: NDArray[np.bool_],
        candidates: Candidates,
        nodes: Column,
        rows: Column,
    ) -> None:
        """Notes the preferred layout of kinds for which no fewer nodes were good."""
        found = good.any(axis=0) & (nodes[which] == 0)
        nodes[which[found]] = candidates.nodes
        rows[which[found]] = candidates.rows.start + good.argmax(axis=0)[found]

    def _choice(self, kind: int, nodes: int, row: int) -> Choice:
        node = self.kinds[kind]
        headroom = self.constraints.headroom
        made = []
        for bound in (LOW, BEST, HIGH):
            rows = slice(row, row + 1)
            reserved, count, larger, host = self.needs.bound(rows, node.per_node, bound)
            none, pair, group = (int(self._columns.overhead[i, bound, kind]) for i in range(3))
            each = group if larger[0] else pair
            made.append((int(reserved[0]) + none + int(count[0]) * each, int(host[0])))
        gpu, host_range = (ByteRange(*(pools[i] for pools in made)) for i in range(2))
        on_host = PoolFit(
            "host",
            host_range,
            node.host_usable_bytes,
            verdict_of(host_range, node.host_usable_bytes, headroom),
        )
        if node.device is None:
            return Choice(nodes, self.needs.layouts[row], (on_host,))
        on_gpu = PoolFit(
            "gpu", gpu, node.gpu_usable_bytes, verdict_of(gpu, node.gpu_usable_bytes, headroom)
        )
        return Choice(nodes, self.needs.layouts[row], (on_gpu, on_host))
