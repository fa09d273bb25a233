"""The search: for every node count and kind of node, the layout and techniques it is best run with.

Exact: a layout's memory depends on GPU counts and the device, never on the offer, so each kind of
node (GPUs, device, GPU and host memory) is decided once; offers are then ranked by their prices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.runtime import KernelLoading
from sizewright_server.planning.hours import NEVER, Hours
from sizewright_server.planning.kinds import KindColumns, NodeKind
from sizewright_server.planning.needs import Candidates, Needs
from sizewright_server.planning.picks import Floats, Mask, Picks, fewest
from sizewright_server.planning.plan import Choice, Constraints, PoolFit, verdict_of
from sizewright_server.planning.throughput import speed_of
from sizewright_server.planning.variants import Variant
from sizewright_server.planning.words import Placements

if TYPE_CHECKING:
    from sizewright_server.planning.competitors import Competitors
    from sizewright_server.planning.standing import Standing

BEST, HIGH = 1, 2
#: Bytes no machine lacks: nothing was tried.
NOTHING_TRIED = 2**62


class Search:
    """What was found so far; `add` brings in node counts of one variant.

    `fits` has the pick of each node count by the hours of the job (the preferred layout where no
    job is stated), `free` the one that leaves most memory free, `tight` the one that fits by the
    best estimate. `near` is the pick that lacks least memory, `near.score` the bytes it lacks.
    `loading` says how CUDA loads the workload's kernels.
    """

    def __init__(
        self,
        kinds: KindColumns,
        constraints: Constraints,
        wanted: Mask,
        loading: KernelLoading | None,
    ) -> None:
        self.kinds, self.constraints, self.wanted = kinds, constraints, wanted
        self._overhead = kinds.overheads[loading]
        usable, keep = (kinds.gpu_usable_bytes, kinds.host_usable_bytes), 1 - constraints.headroom
        self._gpu_limit, self._host_limit = ((size * keep).astype(np.int64) for size in usable)
        self._places = kinds.connected | constraints.allow_unknown_network, kinds.local_disk_bytes
        count = len(kinds.kinds)
        self.fits: dict[int, Picks] = {}
        self.free: dict[int, Picks] = {}
        self.tight: dict[int, Picks] = {}
        self.near = Picks(count)
        self.near_on_gpu = np.zeros(count, dtype=np.bool_)
        #: How often something was brought in.
        self.rounds = 0
        self._needs: dict[tuple[int, int], Needs] = {}
        self._variants: dict[int, Variant] = {}
        self._hours: dict[int, Hours | None] = {}
        self._choices: dict[tuple[int, int, int, int], Choice] = {}
        self._fastest_rows: dict[tuple[int, int, int, int], int] = {}
        self._first: tuple[int, Picks, Picks] | None = None
        self.placements = Placements()
        #: What stands, by who competes: kept as long as they are.
        self.standings: WeakKeyDictionary[Competitors, Standing] = WeakKeyDictionary()

    def add(
        self,
        number: int,
        variant: Variant,
        node_counts: Sequence[int],
        *,
        only: Mask | None = None,
        hours: Hours | None = None,
        needs: Needs | None = None,
    ) -> Picks:
        """Tries every layout of a variant on `node_counts` nodes of the kinds in `only`.

        `needs` are those of `needs_of`, where they were estimated for more at once. Returns the
        pick of each kind that lacked least in this try.
        """
        self.rounds += 1
        self._choices.clear()
        self._fastest_rows.clear()
        open_kinds = self.wanted if only is None else self.wanted & only
        if needs is None:
            needs = self.needs_of(variant, dict.fromkeys(node_counts, open_kinds))
        self._variants[number], self._hours[number] = variant, hours
        for nodes in node_counts:
            self._needs[number, nodes] = needs
        nearest = Picks(len(self.kinds.kinds))
        for candidates in needs.candidates:
            if candidates.nodes in node_counts:
                which = self._where(candidates.per_node, candidates.nodes, open_kinds)
                if len(which):
                    self._try(number, needs, candidates, which, hours, nearest)
        return nearest

    def needs_of(self, variant: Variant, open_kinds: Mapping[int, Mask]) -> Needs:
        """A variant's needs on each number of nodes, for the kinds that are open on so many.

        Sizes that no open kind has, or has not so many nodes of, are not estimated.
        """
        sizes = [
            (size, nodes)
            for nodes, kinds in open_kinds.items()
            for size in np.flatnonzero(np.bincount(self.kinds.per_node[kinds])).tolist()
            if variant.prepared.layouts_for(size * nodes, size)
            and len(self._where(size, nodes, kinds))
        ]
        return Needs(variant.prepared, sizes)

    def choice(self, picks: Picks, kind: int) -> Choice:
        """A pick with its numbers. Of the layouts that fit as well, the fastest is taken."""
        pick = (*picks.of(kind), kind)
        row = self._fastest_rows.get(pick)
        if row is None:
            row = self._fastest_rows[pick] = self._fastest(*pick)
        return self._chosen(pick[0], pick[1], row, kind)

    def picked(self, picks: Picks, kind: int) -> Choice:
        """A pick with its numbers, under the very layout that was picked."""
        return self._chosen(*picks.of(kind), kind)

    def _chosen(self, number: int, nodes: int, row: int, kind: int) -> Choice:
        # Many offers are of one kind of node.
        key = (number, nodes, row, kind)
        made = self._choices.get(key)
        if made is None:
            made = self._choices[key] = self._choice(number, nodes, row, kind)
        return made

    def _choice(self, number: int, nodes: int, row: int, kind: int) -> Choice:
        needs, node = self._needs[number, nodes], self.kinds.kinds[kind]
        layout = needs.layouts[row]
        hours = self._hours[number]
        return Choice(
            nodes,
            self._variants[number],
            layout,
            self._pools(needs, row, kind, node),
            None if hours is None else hours.of(layout, node),
        )

    def _fastest(self, number: int, nodes: int, row: int, kind: int) -> int:
        """The row of the fastest layout that fits; `row` itself where it does not fit."""
        needs = self._needs[number, nodes]
        candidates = next(c for c in needs.candidates if c.rows.start <= row < c.rows.stop)
        if candidates.rows.stop - candidates.rows.start == 1:
            return row
        speed, node = speed_of(self._variants[number]), self.kinds.kinds[kind]
        if speed is None:
            return row
        which = np.array([kind])
        cut_off = needs.cut_off(candidates, self._places, which)
        lack, _ = self._lack(self._peaks(needs, candidates, which, HIGH), which, cut_off)
        first: int = candidates.rows.start
        fitting = [int(at) for at in np.nonzero(lack[:, 0] <= 0)[0]]
        if row - first not in fitting:
            return row
        hours = speed.columns([needs.layouts[first + at] for at in fitting], [node])[:, 0]
        return first + fitting[int(hours.argmin())]

    def first_fit(self) -> Picks:
        """Per kind the pick with the fewest nodes."""
        return self._fewest()[0]

    def first_tight(self) -> Picks:
        """Per kind the tight pick with the fewest nodes."""
        return self._fewest()[1]

    def _fewest(self) -> tuple[Picks, Picks]:
        if self._first is None or self._first[0] != self.rounds:
            count = len(self.kinds.kinds)
            self._first = (self.rounds, fewest(self.fits, count), fewest(self.tight, count))
        return self._first[1:]

    def _where(self, per_node: int, nodes: int, open_kinds: Mask) -> Column:
        """The kinds of node with so many GPUs each that there are so many of."""
        gpus, kinds = per_node * nodes, self.kinds
        asked = self.constraints
        few = gpus < asked.min_gpus or nodes < asked.min_nodes
        if few or (asked.max_gpus is not None and gpus > asked.max_gpus):
            return np.zeros(0, dtype=np.int64)
        return np.nonzero(
            open_kinds
            & (kinds.per_node == per_node)
            & (kinds.count >= nodes)
            & (kinds.whole | (gpus == 1))
        )[0]

    def _try(
        self,
        number: int,
        needs: Needs,
        candidates: Candidates,
        which: Column,
        hours: Hours | None,
        nearest: Picks,
    ) -> None:
        peaks = self._peaks(needs, candidates, which, HIGH)
        cut_off = needs.cut_off(candidates, self._places, which)
        lack, gpu_lack = self._lack(peaks, which, cut_off)
        tight_lack, _ = self._lack(self._peaks(needs, candidates, which, BEST), which, cut_off)
        self._note_nearest(number, candidates, which, lack, gpu_lack, nearest)
        kinds = [self.kinds.kinds[kind] for kind in which.tolist()]
        layouts = needs.layouts[candidates.rows]
        score = np.zeros(lack.shape) if hours is None else hours.columns(layouts, kinds)
        self._offer(self.fits, which, np.where(lack <= 0, score, NEVER), number, candidates)
        self._offer(self.tight, which, np.where(tight_lack <= 0, score, NEVER), number, candidates)
        used = self._used_share(peaks, which)
        self._offer(self.free, which, np.where(lack <= 0, used, NEVER), number, candidates)

    def _note_nearest(
        self,
        number: int,
        candidates: Candidates,
        which: Column,
        lack: Column,
        gpu_lack: Column,
        nearest: Picks,
    ) -> None:
        row = lack.argmin(axis=0)
        at = np.arange(len(which))
        before = self.near.score[which]
        least = lack[row, at].astype(np.float64)
        for picks in (nearest, self.near):
            picks.offer(which, least, number, candidates.nodes, candidates.rows.start + row)
        changed = self.near.score[which] < before
        self.near_on_gpu[which[changed]] = gpu_lack[row, at][changed] > 0

    def _offer(
        self,
        levels: dict[int, Picks],
        which: Column,
        score: Floats,
        number: int,
        candidates: Candidates,
    ) -> None:
        row = score.argmin(axis=0)
        nodes = candidates.nodes
        picks = levels.setdefault(nodes, Picks(len(self.kinds.kinds)))
        best = score[row, np.arange(len(which))]
        picks.offer(which, best, number, nodes, candidates.rows.start + row)

    def _peaks(
        self, needs: Needs, candidates: Candidates, which: Column, bound: int
    ) -> tuple[Column, Column]:
        """Bytes on the GPU and on the host: a row per layout, a column per kind or one for all."""
        _, count, larger, host = needs.bound(candidates.rows, candidates.per_node, bound)
        reserved = needs.reserved(candidates.rows, bound, self.kinds, which)
        none, pair, group = (self._overhead[i, bound, which] for i in range(3))
        each = np.where(larger[:, None], group, pair)
        gpu = reserved + none + count[:, None] * each
        unified = self.kinds.unified[which]
        if unified.any():
            return gpu, host[:, None] + unified * candidates.per_node * gpu
        return gpu, host[:, None]

    def _lack(
        self, peaks: tuple[Column, Column], which: Column, cut_off: Mask | None
    ) -> tuple[Column, Column]:
        """Bytes lacking in the worst pool, and on the GPU; no end of them for what is cut off."""
        gpu = peaks[0] - self._gpu_limit[which]
        lack = np.maximum(gpu, peaks[1] - self._host_limit[which])
        return (lack if cut_off is None else np.where(cut_off, NOTHING_TRIED, lack)), gpu

    def _used_share(self, peaks: tuple[Column, Column], which: Column) -> Floats:
        """Share of what is usable that the fuller pool takes."""
        usable_gpu = self.kinds.gpu_usable_bytes[which]
        gpu = np.where(usable_gpu > 0, peaks[0] / np.maximum(usable_gpu, 1), 0.0)
        return np.maximum(gpu, peaks[1] / np.maximum(self.kinds.host_usable_bytes[which], 1))

    def _pools(self, needs: Needs, row: int, kind: int, node: NodeKind) -> tuple[PoolFit, ...]:
        headroom = self.constraints.headroom
        gpu, host = needs.peaks_of(row, node, self._overhead[:, :, kind].tolist())
        usable = node.host_usable_bytes
        on_host = PoolFit("host", host, usable, verdict_of(host, usable, headroom))
        if node.device is None:
            return (on_host,)
        usable = node.gpu_usable_bytes
        return PoolFit("gpu", gpu, usable, verdict_of(gpu, usable, headroom)), on_host
