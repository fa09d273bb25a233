"""The memory of every layout on every node size a question can reach, estimated in one walk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.estimator import LayoutColumns, PreparedWorkload
from sizewright_server.estimation.host_states import nvme_bytes
from sizewright_server.estimation.memory import ByteRange, MemoryEstimate
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.runtime import DeviceOverhead
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.workload import Layout, Training
from sizewright_server.planning.kinds import KindColumns, NodeKind, serving_class

_BOUNDS = ("low", "best", "high")


class Prepared(Protocol):
    """What planning needs of a prepared workload."""

    @property
    def workload(self) -> AnyWorkload:
        """What was prepared."""
        ...

    def layouts_for(self, gpus: int, gpus_per_node: int) -> tuple[Layout, ...]:
        """The layouts to try, the preferred first."""
        ...

    def columns(self, layouts: Sequence[Layout]) -> LayoutColumns:
        """Every layout's needs at once."""
        ...

    def estimate(
        self,
        layout: Layout,
        ranks_per_node: int,
        overhead: DeviceOverhead,
        *,
        replay: bool = False,
    ) -> MemoryEstimate:
        """The whole explained tree for one layout."""
        ...


@dataclass(frozen=True, slots=True)
class Candidates:
    """The layouts of `nodes` nodes with `per_node` GPUs each: rows of the columns."""

    per_node: int
    nodes: int
    rows: slice


class Needs:
    """Columns over all candidates' layouts together, each distinct layout estimated once."""

    def __init__(self, prepared: Prepared, sizes: Iterable[tuple[int, int]]) -> None:
        self._prepared = prepared
        self.candidates: list[Candidates] = []
        self.layouts: list[Layout] = []
        for per_node, nodes in sizes:
            found = prepared.layouts_for(per_node * nodes, per_node)
            if found:
                rows = slice(len(self.layouts), len(self.layouts) + len(found))
                self.candidates.append(Candidates(per_node, nodes, rows))
                self.layouts += found
        self._trains = isinstance(getattr(prepared.workload, "run", None), Training)
        self._served = prepared if isinstance(prepared, PreparedServing) else None
        self._columns = prepared.columns(self.layouts) if self.layouts else None
        #: Rows that were asked for by themselves: kinds of node share them.
        self._rows: dict[int, list[int]] = {}

    def cut_off(
        self, candidates: Candidates, places: tuple[NDArray[np.bool_], Column], which: Column
    ) -> NDArray[np.bool_] | None:
        """Which layouts (rows) cannot run on which kinds (columns), however much memory they have.

        For want of a network, or of local disk for what is offloaded to it: `places` says of each
        kind whether its network is known, and its disk. None where all can.
        """
        connected, disk_bytes = places[0][which], places[1][which]
        layouts = self.layouts[candidates.rows]
        apart = self._apart(candidates, connected, layouts)
        if not layouts[0].offload.startswith("nvme"):
            return apart
        needed = [candidates.per_node * self._on_disk(layout) for layout in layouts]
        full: NDArray[np.bool_] = np.array(needed)[:, None] > disk_bytes
        return full if apart is None else full | apart

    def _on_disk(self, layout: Layout) -> int:
        """Bytes that a rank keeps on a local disk."""
        prepared = self._prepared
        if not isinstance(prepared, PreparedWorkload):
            return 0
        run = prepared.workload.run
        trained = prepared.trainable_parameter_count
        return nvme_bytes(run, layout, trained) if isinstance(run, Training) else 0

    def _apart(
        self, candidates: Candidates, connected: NDArray[np.bool_], layouts: Sequence[Layout]
    ) -> NDArray[np.bool_] | None:
        """Which layouts need a network that is not known.

        Between nodes the ranks of training talk, and in inference those of one replica; replicas
        do not.
        """
        if candidates.nodes == 1 or connected.all():
            return None
        replicas = [max(one.gpus // one.dp, one.ep) for one in layouts]
        talking = [self._trains or size > candidates.per_node for size in replicas]
        return np.array(talking, dtype=np.bool_)[:, None] & ~connected

    def bound(
        self, rows: slice, ranks: int, bound: int
    ) -> tuple[Column, Column, NDArray[np.bool_], Column]:
        """One bound (0 low, 1 best, 2 high) of some layouts.

        Reserved bytes per GPU, communicators, whether the largest has more than two ranks, and a
        node's host bytes with `ranks` ranks.
        """
        reserved, host_node, host_rank = self._by_bound[bound]
        columns = self._known()
        host: Column = host_node[rows] + ranks * host_rank[rows]
        shared = columns.communicator_count[rows], columns.largest_group[rows] > 2
        return reserved[rows], *shared, host

    def _known(self) -> LayoutColumns:
        if self._columns is None:
            raise LookupError("no layout was estimated")
        return self._columns

    @cached_property
    def _by_bound(self) -> list[tuple[Column, Column, Column]]:
        """Bytes reserved per GPU, and of a node and each of its ranks on the host, by bound."""
        columns = self._known()
        return [
            (
                getattr(columns, f"gpu_reserved_{name}_bytes"),
                getattr(columns, f"host_node_{name}_bytes"),
                getattr(columns, f"host_rank_{name}_bytes"),
            )
            for name in _BOUNDS
        ]

    def peaks_of(
        self, row: int, node: NodeKind, overhead: Sequence[Sequence[int]]
    ) -> tuple[ByteRange, ByteRange]:
        """Bytes of one layout on each GPU, and on the host of a node.

        `overhead`: low, best and high bytes without collectives, of a pair's communicator, of a
        larger group's.
        """
        made, ranks = self._rows.get(row), node.per_node
        if made is None:
            made = self._rows[row] = self._known().of(row)
        reserved = made[:3]
        if self._served is not None:
            seen = serving_class(node.device, self._served.workload.run.engine)
            on_class = self._served.reserved_on(self.layouts[row : row + 1], seen)
            reserved = [int(bound[0]) for bound in on_class]
        *_, count, largest = made
        each = overhead[2 if largest > 2 else 1]
        gpu = [reserved[i] + overhead[0][i] + count * each[i] for i in range(3)]
        shared = ranks if node.unified else 0
        host = [made[6 + i] + ranks * made[3 + i] + shared * gpu[i] for i in range(3)]
        return ByteRange(*gpu), ByteRange(*host)

    def reserved(self, rows: slice, bound: int, kinds: KindColumns, which: Column) -> Column:
        """Reserved bytes per GPU: a row per layout, a column per kind, or one for all of them.

        An engine's default batches depend on the GPU, and so does what it needs.
        """
        if self._served is None:
            return self._by_bound[bound][0][rows][:, None]
        codes, classes = kinds.serving_classes(self._served.workload.run.engine)
        layouts, mine = self.layouts[rows], codes[which]
        made = np.empty((len(layouts), len(which)), dtype=np.int64)
        for code in np.unique(mine).tolist():
            on_class = self._served.reserved_on(layouts, classes[code])[bound]
            made[:, mine == code] = on_class[:, None]
        return made
