"""The host pool of a node as phases and parts."""

from __future__ import annotations

from sizewright_server.estimation.host import HostParts, host_bounds, host_phases
from sizewright_server.estimation.host_data import batch_bytes
from sizewright_server.estimation.host_states import HostStates
from sizewright_server.estimation.memory import (
    ByteRange,
    Notice,
    Part,
    Phase,
    PoolEstimate,
    total_of,
)
from sizewright_server.estimation.workload import Workload


def explain_host(workload: Workload, states: HostStates, ranks: int) -> PoolEstimate:
    """Every phase's parts for `ranks` ranks on a node; the peak is the highest of each bound."""
    described = host_phases(workload, states)
    phases = tuple(_phase(parts, ranks) for parts in described)
    highest = max(phases, key=lambda phase: phase.total.best_bytes)
    bounds = host_bounds(described)
    peak = ByteRange(*(ranks * bounds[at] + bounds[at + 3] for at in range(3)))
    return PoolEstimate(
        "host",
        f"a node with {ranks} {'rank' if ranks == 1 else 'ranks'}",
        phases,
        highest.name,
        peak,
    )


def _phase(parts: HostParts, ranks: int) -> Phase:
    each = [_times(part, ranks) for part in parts.per_rank]
    kept = tuple(part for part in (*each, *parts.per_node) if part.size.high_bytes)
    return Phase(parts.phase, total_of(kept), kept)


def _times(part: Part, ranks: int) -> Part:
    each = part.size
    size = ByteRange(ranks * each.low_bytes, ranks * each.best_bytes, ranks * each.high_bytes)
    numbers = f"{ranks} ranks x ({part.numbers})"
    return Part(part.name, size, part.formula, numbers, part.source, part.confidence)


def host_notices(workload: Workload) -> tuple[Notice, ...]:
    """What to know of the container around the job."""
    host = workload.host
    shared = host.loader_workers * host.prefetch_factor * batch_bytes(workload)
    if not host.shared_memory_bytes or shared <= host.shared_memory_bytes:
        return ()
    words = (
        f"Loader workers pass {shared:,} bytes of batches through /dev/shm on each rank, more than "
        f"the {host.shared_memory_bytes:,} it holds: they would die of a bus error."
    )
    return (Notice("shared-memory-too-small", words),)
