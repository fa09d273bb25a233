"""Pitfalls of what feeds a network: copies by worker and rank, loaders, disks, decoded data."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sizewright_server.estimation.host import entry_part
from sizewright_server.estimation.host_data import COUNTED_BYTES, ITEM_BYTES, sample_bytes
from sizewright_server.estimation.memory import Notice
from sizewright_server.planning.offload_time import disks
from sizewright_server.planning.situation import GIB, Situation, gib, seconds

#: Loader processes on a node that nobody means to start.
MANY_PROCESSES = 32
#: Copies that take less are no news.
LARGE_BYTES = GIB


def _dataset_copies(it: Situation) -> Iterator[Notice]:
    """Arrays in every rank; Python objects whose heads every forked worker copies."""
    work = it.network
    if work is None or work.dataset is None:
        return
    data, workers, ranks = work.dataset, work.host.loader_workers, it.ranks_per_node
    size = data.rows * sample_bytes(data)
    spawned = work.host.worker_start != "fork"
    if data.container in ("in-memory", "objects"):
        copies = ranks * (workers + 1 if spawned else 1)
        if copies > 1 and (copies - 1) * size >= LARGE_BYTES:
            who = f"each of {ranks} ranks" if ranks > 1 else "the rank"
            also = f" and of their {workers} {work.host.worker_start}ed loader workers"
            words = (
                f"The dataset of {gib(size)} is in the memory of {who}{also if spawned else ''}: "
                f"{copies} copies, {gib(copies * size)} on a node. Memory-mapped files are one."
            )
            yield Notice("dataset-copies", words)
    heads = data.rows * COUNTED_BYTES * workers * ranks
    if data.container == "objects" and workers and not spawned and heads >= LARGE_BYTES:
        words = (
            f"Reading a Python object counts a reference, which copies its page in each of "
            f"{ranks * workers} forked loader workers: host memory grows by up to {gib(heads)} "
            "over the first epoch, like a leak that ends. Arrays or Arrow files do not. Watch it "
            "with `sizewright observe`."
        )
        yield Notice("growth-by-workers", words)


def _many_processes(it: Situation) -> Iterator[Notice]:
    work = it.network
    if work is None or not work.host.loader_workers:
        return
    workers, cpus, ranks = work.host.loader_workers, it.target.vcpus, it.ranks_per_node
    processes = ranks * workers
    if processes > MANY_PROCESSES or (cpus and processes > cpus):
        kind = "loader_worker" if work.host.worker_start == "fork" else "spawned_worker"
        each = entry_part(kind, kind, "").size.best_bytes
        who = f"{workers} loader workers are as many"
        if ranks > 1:
            who = f"{ranks} ranks with {workers} loader workers each are {processes}"
        # An owner need not say how many vCPUs there are.
        node = f"a node of {cpus} vCPUs" if cpus else "a node"
        words = (
            f"{who} processes on {node}; they hold {gib(processes * each)} beside their batches."
        )
        yield Notice("many-loader-processes", words)


def _checkpoint_copies(it: Situation) -> Iterator[Notice]:
    """Every rank reads the whole checkpoint."""
    work, model, ranks = it.network, it.model, it.ranks_per_node
    if work is None or model is None or ranks == 1:
        return
    if work.host.checkpoint_load not in ("torch-load", "torch-load-into"):
        return
    each = model.checkpoint_bytes() * (2 if work.host.checkpoint_load == "torch-load-into" else 1)
    if ranks * each >= LARGE_BYTES:
        words = (
            f"Each of {ranks} ranks reads the whole checkpoint with torch.load: {ranks} x "
            f"{gib(each)} are {gib(ranks * each)} of host memory at the start. Safetensors are "
            "mapped, and torch.load takes mmap=True."
        )
        yield Notice("checkpoint-copies", words)


def _beyond_page_cache(it: Situation) -> Iterator[Notice]:
    """More host memory does not help where the data is read from disk in every epoch."""
    work, host = it.network, it.pool("host")
    if work is None or work.dataset is None or host is None:
        return
    data = work.dataset
    size = data.rows * sample_bytes(data)
    if data.container == "memory-mapped" and size > host.usable_bytes - host.peak.best_bytes:
        band = disks()["nvme_read"]
        words = (
            f"The dataset of {gib(size)} does not fit the page cache beside the job: disk reads "
            f"bind, {seconds(size / band['high'], size / band['low'])} an epoch from a local NVMe "
            "drive, and more memory helps only when it holds all of it."
        )
        yield Notice("disk-binds", words)


def _wide_samples(it: Situation) -> Iterator[Notice]:
    """Decoding that multiplies the data: images as float32, token ids as int64."""
    work = it.network
    if (
        work is None
        or work.dataset is None
        or work.dataset.container not in ("in-memory", "objects")
    ):
        return
    data = work.dataset
    size = data.rows * sample_bytes(data)
    if size < LARGE_BYTES:
        return
    if data.sample_elements and ITEM_BYTES[data.dtype] > 1:
        words = (
            f"Decoded samples in {data.dtype} take {gib(size)}; as uint8 they take "
            f"{gib(size / ITEM_BYTES[data.dtype])}, and are converted batch by batch."
        )
        yield Notice("preprocessing-multiplies", words)
    elif data.tokens_per_row and data.dtype == "int64":
        words = (
            f"Token ids in int64 take {gib(size)}; int32 holds every vocabulary in "
            f"{gib(size / 2)}, and uint16 those below 65,536."
        )
        yield Notice("preprocessing-multiplies", words)


DATA: tuple[Callable[[Situation], Iterator[Notice]], ...] = (
    _dataset_copies,
    _many_processes,
    _checkpoint_copies,
    _beyond_page_cache,
    _wide_samples,
)
