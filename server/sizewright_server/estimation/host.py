"""Host memory of one node: the job's own processes, their loaders, and checkpoints on their way.

Symbols: R ranks on the node, W loader workers per rank, p batches each prepares ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.host_data import batch_bytes, dataset_parts, loader_parts
from sizewright_server.estimation.host_states import HostStates
from sizewright_server.estimation.memory import ByteRange, Confidence, Part, total_of
from sizewright_server.estimation.workload import Training, Workload

__all__ = ["HostParts", "batch_bytes", "host_bounds", "host_phases"]

MIB = 2**20
#: transformers writes and reads checkpoints in shards of at most this (modeling_utils.py,
#: `max_shard_size="50GB"` when saving since 5.0, 5 GB before: the public ones are of the latter).
SHARD_BYTES = 5 * 10**9
SAVED_SHARD_BYTES = 50 * 10**9
#: Bytes in flight from the GPU while a rank writes its own part (checkpoint/filesystem.py,
#: `inflight_threshhold` 10 MB, two threads).
IN_FLIGHT_BYTES = 20 * 10**6
_BOUNDS = ("low", "value", "high")


@dataclass(frozen=True, slots=True)
class HostParts:
    """Parts of one phase: those every rank has, and those a node has once."""

    phase: str
    per_rank: tuple[Part, ...]
    per_node: tuple[Part, ...]


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = data_of("sizewright_server.estimation", "host")
    return table


def host_phases(workload: Workload, states: HostStates) -> tuple[HostParts, ...]:
    """Loading the checkpoint, running, and saving one where the run trains."""
    process = entry_part("process", "process", "resident set of one rank")
    launcher = entry_part("launcher", "launcher", "resident set of the launcher")
    loaded, loaded_once = _load(workload.host.checkpoint_load, states)
    steady = (
        process,
        *loader_parts(workload, _worker(workload)),
        *dataset_parts(workload),
        *_offloaded(states),
    )
    phases = [
        HostParts("load", (process, *loaded), (launcher, *loaded_once)),
        HostParts("steady", steady, (launcher,)),
    ]
    if isinstance(workload.run, Training) and states.save != "none":
        every, once = _save(states)
        phases.append(HostParts("save", (*steady, *every), (launcher, *once)))
    return tuple(phases)


def host_bounds(phases: tuple[HostParts, ...]) -> list[int]:
    """Low, best and high of a rank's needs, then of what a node has once, over all phases."""
    made: list[int] = []
    for which in ("per_rank", "per_node"):
        totals = [total_of(getattr(phase, which)) for phase in phases]
        made.append(max(total.low_bytes for total in totals))
        made.append(max(total.best_bytes for total in totals))
        made.append(max(total.high_bytes for total in totals))
    return made


def _worker(workload: Workload) -> ByteRange:
    """One loader worker's own pages."""
    kind = "loader_worker" if workload.host.worker_start == "fork" else "spawned_worker"
    return _entry_size(kind)


# -- checkpoints --------------------------------------------------------------------------------


def _load(how: str, states: HostStates) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Host bytes while the weights travel to the GPUs: of every rank, and once on a node."""
    size = states.checkpoint
    shown = f"{size:,} B"
    if how == "random-init":
        return (), ()
    if how == "rank-0-broadcast":
        text = "rank 0 reads the whole state dict and sends it to the others"
        return (), (_memory("checkpoint-in-memory", size, text, shown, "torch.distributed"),)
    if how == "sharded":
        text = "each rank reads its own part"
        numbers = f"{states.rank_checkpoint:,} B"
        source = "torch.distributed.checkpoint, DeepSpeed: files by rank"
        return (_memory("checkpoint-part", states.rank_checkpoint, text, numbers, source),), ()
    if how in ("torch-load", "torch-load-into"):
        copies = 2 if how == "torch-load-into" else 1
        text = "whole state dict in each process, twice with an initialised model beside it"
        source = "torch.load without mmap (transformers pull request 16844: 87 GB for 42 GB)"
        numbers = f"{copies} x {shown}"
        return (_memory("checkpoint-in-memory", copies * size, text, numbers, source),), ()
    if how == "torch-load-mmap":
        text = "pages of the mapped file that were read; the kernel may take them back"
        span = ByteRange(0, size, size)
        return (
            _part("checkpoint-mapped", span, text, shown, "torch.load(mmap=True)", "medium"),
        ), ()
    shard = min(size, SHARD_BYTES)
    text = "memory-mapped safetensors: one tensor in flight, at most one shard"
    source = "safetensors is mapped and copied tensor by tensor; pages are reclaimable"
    span = ByteRange(0, shard // 8, shard)
    return (_part("checkpoint-shard", span, text, f"shard {shard:,} B", source, "medium"),), ()


def _save(states: HostStates) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Host bytes while a checkpoint is saved: of every rank, and once on a node."""
    if states.save == "sharded-async":
        size = states.rank_saved
        text = "each rank's part is copied to host memory and written while training goes on"
        source = "torch.distributed.checkpoint.async_save: one staged copy, two while they overlap"
        span = ByteRange(size, size, 2 * size)
        return (_part("checkpoint-staged", span, text, f"{size:,} B", source, "medium"),), ()
    if states.save == "sharded":
        best = max(states.largest_saved, min(states.rank_saved, IN_FLIGHT_BYTES))
        text = "each rank writes its own part, some tensors in flight"
        source = "torch/distributed/checkpoint/filesystem.py; DeepSpeed: one flat tensor at a time"
        span = ByteRange(0, best, max(best, states.rank_saved))
        return (
            _part("checkpoint-part", span, text, f"{states.rank_saved:,} B", source, "low"),
        ), ()
    size = states.saved
    if states.gathers:
        text = "rank 0 gathers all weights, and optimizer state where it is saved, in host memory"
        source = "torch.distributed.checkpoint.state_dict: full_state_dict with cpu_offload"
        return (), (_memory("checkpoint-gathered", size, text, f"{size:,} B", source),)
    shard = min(states.checkpoint, states.saved, SAVED_SHARD_BYTES)
    text = "rank 0 writes: one tensor at a time (torch.save), or a shard's bytes (safetensors)"
    source = "torch/serialization.py; safetensors/torch.py _flatten makes bytes of every tensor"
    span = ByteRange(0, shard, int(1.2 * shard))
    return (), (_part("checkpoint-written", span, text, f"shard {shard:,} B", source, "low"),)


def _offloaded(states: HostStates) -> tuple[Part, ...]:
    return (*_offloaded_states(states), *_offloaded_checkpoints(states))


def _offloaded_checkpoints(states: HostStates) -> tuple[Part, ...]:
    if not states.activations:
        return ()
    size = states.activations
    text = "inputs of checkpointed blocks, in page-locked memory until their backward pass"
    source = "torch.autograd.graph.save_on_cpu and its like; pinned sizes are powers of two"
    span = ByteRange(size, size, 2 * size)
    return (_part("offloaded-checkpoints", span, text, f"{size:,} B", source, "medium"),)


def _offloaded_states(states: HostStates) -> tuple[Part, ...]:
    if not states.offloaded:
        return ()
    size = states.offloaded
    text = "the rank's fp32 weights, optimizer state and gradients in page-locked memory"
    source = "DeepSpeed runtime/zero: 16 B a parameter for Adam, and up to half as much in buffers"
    span = ByteRange(size, int(1.1 * size), int(1.5 * size))
    return (_part("offloaded-states", span, text, f"{size:,} B", source, "medium"),)


def _memory(name: str, size: int, formula: str, numbers: str, source: str) -> Part:
    return _part(name, ByteRange(size, size, int(1.05 * size)), formula, numbers, source, "medium")


# -- entries of the data file -------------------------------------------------------------------


def _entry_size(key: str) -> ByteRange:
    entry = _table()[key]
    return ByteRange(*(int(entry[k]) * MIB for k in _BOUNDS))


@cache
def entry_part(key: str, name: str, formula: str) -> Part:
    """A measured figure of `data/host.json` as a part."""
    entry = _table()[key]
    numbers = f"{entry['value']} MiB"
    return _part(name, _entry_size(key), formula, numbers, str(entry["source"]), "low")


def _part(
    name: str, size: ByteRange, formula: str, numbers: str, source: str, confidence: Confidence
) -> Part:
    return Part(name, size, formula, numbers, source, confidence)
