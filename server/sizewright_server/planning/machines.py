"""The kind of node a given machine is, and the check of a workload against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.planning.conditions import conditions_of
from sizewright_server.planning.devices import (
    lacks,
    loading_of,
    native_features,
    uses_gpu,
)
from sizewright_server.planning.kinds import KindColumns, node_kind
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.plan import Choice, Constraints
from sizewright_server.planning.search import Search
from sizewright_server.planning.variants import Variant


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
    gpus = " or ".join(str(kind.per_node * n) for n in nodes)
    return Check(None, f"the workload has no layout for {gpus} GPUs on nodes of {kind.per_node}")
