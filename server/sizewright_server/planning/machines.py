"""The kind of node a given machine is, and the check of a workload against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.estimation.estimator import PreparedWorkload
from sizewright_server.estimation.memory import ByteRange, MemoryEstimate
from sizewright_server.planning.conditions import conditions_of
from sizewright_server.planning.devices import (
    lacks,
    loading_of,
    native_features,
    overhead_of,
    uses_gpu,
)
from sizewright_server.planning.kinds import KindColumns, node_kind
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.plan import (
    Choice,
    Constraints,
    PoolFit,
    verdict_of,
)
from sizewright_server.planning.search import Search
from sizewright_server.planning.variants import Variant
from sizewright_server.planning.words import stated_layout


@dataclass(frozen=True, slots=True)
class Check:
    """A workload against one kind of node: the best choice, or why nothing could be tried."""

    choice: Choice | None
    refusal: str


def check_nodes(
    prepared: Prepared,
    target: InstanceType | Machine,
    nodes: Sequence[int],
    constraints: Constraints,
) -> Check:
    """The choice that fits with the fewest of `nodes`; else a tight one, else the nearest."""
    on_gpu = uses_gpu(prepared.workload)
    kind = node_kind(target, conditions_of(prepared.workload), gpu=on_gpu)
    if isinstance(kind, str):
        return Check(None, kind)
    missing = lacks(kind.device, native_features(prepared.workload)) if kind.device else ""
    if missing:
        return Check(None, missing)
    # Whoever names the machine knows how several of it reach each other.
    kind = replace(kind, connected=True, count=getattr(target, "count", None))
    columns = KindColumns([kind])
    search = Search(columns, constraints, np.ones(1, dtype=np.bool_), loading_of(prepared.workload))
    search.add(0, Variant(prepared), nodes)
    for picks in (search.first_fit(), search.first_tight(), search.near):
        if picks.found[0]:
            return Check(search.choice(picks, 0), "")
    if not on_gpu:
        return Check(None, "it runs on the CPUs of one node")
    return Check(None, _no_layout(prepared, kind.per_node, nodes))


def _no_layout(prepared: Prepared, per_node: int, nodes: Sequence[int]) -> str:
    gpus = " or ".join(str(per_node * n) for n in nodes)
    stated = stated_layout(prepared.workload)
    if stated is None or stated.gpus in (per_node * n for n in nodes):
        return f"the workload has no layout for {gpus} GPUs on nodes of {per_node}"
    text = f"the layout that is stated takes {stated.gpus} GPUs, and {gpus} were given"
    wanted, rest = divmod(stated.gpus, per_node)
    return text if rest else f"{text}: {wanted} nodes have so many"


def replayed(choice: Choice, target: InstanceType | Machine, headroom: float) -> Choice:
    """The choice with what a replay of PyTorch's allocator says a GPU needs.

    A choice of other engines, of what runs on no GPU and of serving is given back.
    """
    prepared = choice.variant.prepared
    if not isinstance(prepared, PreparedWorkload) or target.device is None:
        return choice
    overhead = overhead_of(target.device, loading_of(prepared.workload))
    estimate = prepared.estimate(choice.layout, target.device_count, overhead, replay=True)
    return replace(choice, pools=_judged(choice.pools, estimate, target, headroom))


def _judged(
    pools: tuple[PoolFit, ...],
    estimate: MemoryEstimate,
    target: InstanceType | Machine,
    headroom: float,
) -> tuple[PoolFit, ...]:
    """The pools with the GPU's peak of an estimate; memory that both share takes the difference."""
    peak, before = estimate.pool("gpu").peak, {pool.pool: pool.peak for pool in pools}["gpu"]
    shared = isinstance(target, Machine) and target.unified_memory
    made = []
    for pool in pools:
        held = peak if pool.pool == "gpu" else pool.peak
        if pool.pool == "host" and shared:
            held = _moved(held, before, peak, target.device_count)
        made.append(replace(pool, peak=held, verdict=verdict_of(held, pool.usable_bytes, headroom)))
    return tuple(made)


def _moved(size: ByteRange, before: ByteRange, after: ByteRange, count: int) -> ByteRange:
    """A size that holds `count` times what has changed."""
    return ByteRange(
        size.low_bytes + count * (after.low_bytes - before.low_bytes),
        size.best_bytes + count * (after.best_bytes - before.best_bytes),
        size.high_bytes + count * (after.high_bytes - before.high_bytes),
    )
