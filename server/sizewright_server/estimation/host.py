"""Host memory of one node: the job's own processes, their loaders, and the checkpoint on its way.

Symbols: R ranks on the node, W loader workers per rank, p batches each prepares ahead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from sizewright_server.estimation.memory import ByteRange, Confidence, Part
from sizewright_server.estimation.ops import INT64
from sizewright_server.estimation.workload import Inference, Workload

MIB = 2**20

#: Tensors a batch of tokens has: input_ids, labels, attention_mask.
BATCH_TENSORS = 3

#: transformers writes and reads checkpoints in shards of at most this (modeling_utils.py,
#: `max_shard_size="50GB"` when saving since 5.0, 5 GB before: the public ones are of the latter).
SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True, slots=True)
class HostParts:
    """Parts of one phase: those every rank has, and those a node has once."""

    phase: str
    per_rank: tuple[Part, ...]
    per_node: tuple[Part, ...]


@cache
def _table() -> dict[str, Any]:
    text = resources.files("sizewright_server.estimation").joinpath("data/host.json")
    table: dict[str, Any] = json.loads(text.read_text(encoding="utf-8"))
    return table


def host_phases(workload: Workload, checkpoint_bytes: int) -> tuple[HostParts, ...]:
    """Loading the checkpoint, then running. `checkpoint_bytes` is the file's, in the run's type."""
    process = _entry("process", "process", "resident set of one rank")
    launcher = _entry("launcher", "launcher", "resident set of the launcher")
    steady = (process, *_loaders(workload), *_dataset(workload))
    return (
        HostParts("load", (process, *_load(workload, checkpoint_bytes)), (launcher,)),
        HostParts("steady", steady, (launcher,)),
    )


def _load(workload: Workload, checkpoint_bytes: int) -> tuple[Part, ...]:
    """Host bytes a rank holds while the weights travel to its GPU."""
    how = workload.host.checkpoint_load
    if how == "random-init":
        return ()
    if how == "torch-load":
        return (
            _part(
                "checkpoint-in-memory",
                ByteRange(checkpoint_bytes, checkpoint_bytes, 2 * checkpoint_bytes),
                "whole state dict in each process; twice with an initialised model beside it",
                f"{checkpoint_bytes:,} B",
                "torch.load without mmap (transformers pull request 16844: 87 GB for 42 GB)",
                "medium",
            ),
        )
    shard = min(checkpoint_bytes, SHARD_BYTES)
    return (
        _part(
            "checkpoint-shard",
            ByteRange(0, shard // 8, shard),
            "memory-mapped safetensors: one tensor in flight, at most one shard",
            f"shard {shard:,} B",
            "safetensors is mapped and copied tensor by tensor; pages are reclaimable",
            "medium",
        ),
    )


def _loaders(workload: Workload) -> tuple[Part, ...]:
    host = workload.host
    if host.loader_workers == 0:
        return ()
    batch = batch_bytes(workload)
    worker = _table()["loader_worker"]
    workers = ByteRange(*(host.loader_workers * int(worker[k]) * MIB for k in _BOUNDS))
    ahead = host.loader_workers * host.prefetch_factor * batch
    parts = [
        _part(
            "loader-workers",
            workers,
            "W x pages a worker owns",
            f"{host.loader_workers} x {worker['value']} MiB",
            str(worker["source"]),
            "low",
        ),
        _part(
            "loader-prefetch",
            ByteRange(ahead, ahead, 2 * ahead),
            "W x p x batch, in shared memory",
            f"{host.loader_workers} x {host.prefetch_factor} x {batch:,} B",
            "torch.utils.data: each worker keeps prefetch_factor batches ready",
            "high",
        ),
    ]
    if host.pin_memory:
        pinned = 1 << max(0, batch - 1).bit_length()
        parts.append(
            _part(
                "pinned-batches",
                ByteRange(pinned, 2 * pinned, 3 * pinned),
                "page-locked copies, rounded up to a power of two",
                f"2 x {pinned:,} B",
                "torch caching host allocator rounds to powers of two",
                "medium",
            )
        )
    return tuple(parts)


def _dataset(workload: Workload) -> tuple[Part, ...]:
    data = workload.dataset
    if data is None or data.container != "in-memory" or not data.rows:
        return ()
    width = max(data.tokens_per_row, 1) * max(data.columns, 1)
    size = data.rows * width * _ITEM_BYTES[data.dtype]
    return (
        _part(
            "dataset",
            ByteRange(size, size, 2 * size),
            "rows x tokens x columns x bytes per element, in each rank's process",
            f"{data.rows:,} x {width:,} x {_ITEM_BYTES[data.dtype]} B",
            "arrays in memory; a tokenising copy may live beside them",
            "medium",
        ),
    )


def batch_bytes(workload: Workload) -> int:
    """Bytes of one batch of one rank on the host."""
    run = workload.run
    if isinstance(run, Inference):
        return run.batch * run.input_tokens * INT64 * BATCH_TENSORS
    return run.micro_batch * run.seq_len * INT64 * BATCH_TENSORS


_BOUNDS = ("low", "value", "high")

_ITEM_BYTES = {
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "uint8": 1,
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
}


def dataset_dtypes() -> tuple[str, ...]:
    """Element types a dataset may have."""
    return tuple(_ITEM_BYTES)


def _entry(key: str, name: str, formula: str) -> Part:
    entry = _table()[key]
    size = ByteRange(*(int(entry[k]) * MIB for k in _BOUNDS))
    return _part(name, size, formula, f"{entry['value']} MiB", str(entry["source"]), "low")


def _part(
    name: str, size: ByteRange, formula: str, numbers: str, source: str, confidence: Confidence
) -> Part:
    return Part(name, size, formula, numbers, source, confidence)
