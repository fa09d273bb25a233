"""Host memory of serving: processes, weights on their way, swap and offload spaces.

Pages of mapped weight files are the kernel's to take back and no part of the processes; a warning
of the estimate says how many there are.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.host import SHARD_BYTES
from sizewright_server.estimation.memory import ByteRange, Part, Phase
from sizewright_server.estimation.serving.run import POOLED, ServingRun
from sizewright_server.estimation.workload import HostConditions, Layout

MIB = 2**20
#: Spaces that are made after loading.
SPACES = ("swap-space", "cpu-offload")

#: Name, the parts each rank has, and those a node has once.
HostPhase: TypeAlias = tuple[str, tuple[Part, ...], tuple[Part, ...]]


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = data_of("sizewright_server.estimation.serving", "host")
    return table


def _entry(key: str, times: float = 1) -> Part:
    """`times` an entry of the table."""
    entry = _table()[key]
    size = ByteRange(*(int(entry[k] * MIB * times) for k in ("low", "value", "high")))
    numbers = f"{times:g} x {entry['value']} MiB" if times != 1 else f"{entry['value']} MiB"
    return Part(key, size, str(entry["formula"]), numbers, str(entry["source"]), "low")


def rank_parts(run: ServingRun, layout: Layout, swap_bytes: int) -> tuple[Part, ...]:
    """What each rank's process holds while it serves, and its share of its replica's scheduler."""
    parts = [_entry("worker-process" if run.engine in POOLED else "module-process")]
    ranks = layout.tp * layout.pp
    if run.engine == "vllm" and ranks > 1:
        parts.append(_entry("engine-core", 1 / ranks))
    for name, size, source in (
        ("swap-space", swap_bytes, "page-locked blocks for preempted sequences"),
        ("cpu-offload", run.cpu_offload_bytes, "weights kept in page-locked memory"),
    ):
        if size:
            exact = ByteRange(size, size, size)
            parts.append(Part(name, exact, "bytes stated", f"{size:,} B", source, "high"))
    return tuple(parts)


def node_parts(run: ServingRun) -> tuple[Part, ...]:
    """What a node holds once: the front end of the engine."""
    if run.engine not in POOLED:
        return ()
    return (_entry("api-server" if run.engine == "vllm" else "front-end"),)


def loading_part(conditions: HostConditions, rank_bytes: int, file_bytes: int) -> Part:
    """Weights of one rank on their way to its GPU."""
    if conditions.checkpoint_load == "torch-load":
        size = ByteRange(file_bytes, file_bytes, 2 * file_bytes)
        words, source = "the whole state dict in each process", "torch.load without mmap"
    elif conditions.checkpoint_load == "random-init":
        return Part(
            "checkpoint-shard", ByteRange(0, 0, 0), "none", "0 B", "no file is read", "high"
        )
    else:
        shard = min(rank_bytes, SHARD_BYTES)
        size = ByteRange(0, shard // 8, shard)
        words = "memory-mapped safetensors: one tensor in flight, at most one shard"
        source = (
            "safetensors is mapped and copied tensor by tensor: 172 MiB of a process's own and "
            "1.9 GiB of pages the kernel takes back, reading a shard of 1.8 GiB"
        )
    return Part("checkpoint-shard", size, words, f"{size.best_bytes:,} B", source, "medium")


def phases(
    run: ServingRun, conditions: HostConditions, layout: Layout, rank_bytes: int, swap_bytes: int
) -> tuple[HostPhase, ...]:
    """Name, each rank's parts and the node's, of loading and of serving."""
    steady = rank_parts(run, layout, swap_bytes)
    processes = tuple(p for p in steady if p.name not in SPACES)
    loading = (*processes, loading_part(conditions, rank_bytes, rank_bytes * layout.gpus))
    node = node_parts(run)
    return (("load", loading, node), ("serving", steady, node))


def phase_of(name: str, each: tuple[Part, ...], node: tuple[Part, ...], ranks: int) -> Phase:
    """A host phase of a node with `ranks` ranks."""
    parts = []
    total = ByteRange(0, 0, 0)
    for part in each:
        size = ByteRange(
            ranks * part.size.low_bytes, ranks * part.size.best_bytes, ranks * part.size.high_bytes
        )
        numbers = f"{ranks} x {part.numbers}" if ranks > 1 else part.numbers
        parts.append(Part(part.name, size, part.formula, numbers, part.source, part.confidence))
    parts += node
    for part in parts:
        total = total + part.size
    return Phase(name, total, tuple(p for p in parts if p.size.high_bytes))


def highest(made: tuple[HostPhase, ...], bound: str) -> tuple[int, int]:
    """The largest per-rank and per-node sums of the phases."""
    each = max(sum(getattr(p.size, bound) for p in phase[1]) for phase in made)
    node = max(sum(getattr(p.size, bound) for p in phase[2]) for phase in made)
    return each, node
