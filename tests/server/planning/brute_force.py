"""The planner's promise worked out the slow way: every offer, node count, layout and variant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.values import InstanceType
from sizewright_server.estimation.preparation import AnyWorkload, prepare_any
from sizewright_server.estimation.runtime import DeviceOverhead
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.devices import (
    lacks,
    native_features,
    overhead_of,
    unsupported_reason,
)
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.plan import Constraints
from sizewright_server.planning.variants import Combination


@dataclass(frozen=True)
class Slow:
    """A plan that fits: what it costs an hour and where."""

    nanos: int
    nodes: int
    offer: str


def fitting_plans(
    catalog: Catalog,
    offers: list[int],
    workload: AnyWorkload,
    constraints: Constraints,
    combinations: list[Combination],
) -> Iterator[Slow]:
    """Every plan that fits, one offer and one node count at a time."""
    prepared = [prepare_any(made) for made in (workload, *(c[0] for c in combinations))]
    base = native_features(workload)
    for number in offers:
        offer = catalog.offer(number)
        if not _allowed(offer.instance_type, base) or offer.price.currency != "USD":
            continue
        for nodes in range(constraints.min_nodes, constraints.max_nodes + 1):
            if any(_runs(one, offer.instance_type, nodes, constraints) for one in prepared):
                yield Slow(offer.price.per_hour_nanos * nodes, nodes, offer.name)


def _allowed(kind: InstanceType, features: tuple[str, ...]) -> bool:
    device = kind.device
    if device is None or kind.device_count == 0 or kind.unsizable_reason:
        return False
    return not unsupported_reason(device) and not lacks(device, features)


def _runs(prepared: Prepared, kind: InstanceType, nodes: int, constraints: Constraints) -> bool:
    gpus = kind.device_count * nodes
    assert kind.device is not None
    if lacks(kind.device, native_features(prepared.workload)):
        return False
    if gpus < constraints.min_gpus or (kind.slice < 1 and gpus > 1):
        return False
    if constraints.max_gpus is not None and gpus > constraints.max_gpus:
        return False
    known = kind.network is not None and kind.network.fabric
    if nodes > 1 and not known and not constraints.allow_unknown_network:
        # All that is asked here trains, so that every rank talks to every other.
        return False
    overhead = overhead_of(kind.device)
    return any(
        _fits(prepared, layout, kind, overhead, constraints.headroom)
        for layout in prepared.layouts_for(gpus, kind.device_count)
    )


def _fits(
    prepared: Prepared,
    layout: Layout,
    kind: InstanceType,
    overhead: DeviceOverhead,
    headroom: float,
) -> bool:
    gpu, host_rank, host_node, communicators, largest = _high(prepared, layout)
    on_gpu = gpu + overhead.total(communicators, largest).high_bytes
    on_host = host_node + kind.device_count * host_rank
    return on_gpu <= int(kind.gpu_usable_bytes * (1 - headroom)) and on_host <= int(
        kind.host_usable_bytes * (1 - headroom)
    )


def _high(prepared: Prepared, layout: Layout) -> tuple[int, int, int, int, int]:
    """The high estimates of one layout alone."""
    columns = prepared.columns((layout,))
    return (
        int(columns.gpu_reserved_high_bytes[0]),
        int(columns.host_rank_high_bytes[0]),
        int(columns.host_node_high_bytes[0]),
        int(columns.communicator_count[0]),
        int(columns.largest_group[0]),
    )
