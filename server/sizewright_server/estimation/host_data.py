"""A job's data in host memory: the dataset in its container, loader workers and their batches."""

from __future__ import annotations

from sizewright_server.estimation.memory import ByteRange, Part
from sizewright_server.estimation.ops import INT64
from sizewright_server.estimation.workload import Dataset, Inference, Workload

#: Tensors a batch of tokens has: input_ids, labels, attention_mask.
BATCH_TENSORS = 3
#: Decoded images and clips become float32 tensors before they are batched.
FLOAT_BYTES = 4
RGB = 3
#: A small NumPy array or tensor object, with its reference in the list.
OBJECT_BYTES = 120
#: What reading a row writes to: the reference counts of a tuple, an array and a label, whose heads
#: lie close together in Python's own arenas, apart from the array's data.
COUNTED_BYTES = 176
ITEM_BYTES = {
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "uint8": 1,
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
}


def sample_bytes(data: Dataset) -> int:
    """One row as it is held: a decoded image or clip, tokens, or columns."""
    elements = data.sample_elements or max(data.tokens_per_row, 1) * max(data.columns, 1)
    return elements * ITEM_BYTES[data.dtype]


def batch_bytes(workload: Workload) -> int:
    """Bytes of one batch of one rank on the host."""
    run, data = workload.run, workload.dataset
    rows = run.batch if isinstance(run, Inference) else run.micro_batch
    if data is not None and data.sample_elements:
        return rows * data.sample_elements * FLOAT_BYTES
    tokens = run.input_tokens if isinstance(run, Inference) else run.seq_len
    pixels = RGB * run.image_size**2 * FLOAT_BYTES if run.image_size else 0
    return rows * (tokens * INT64 * BATCH_TENSORS + pixels)


def pinned_bytes(size: int) -> int:
    """Page-locked bytes for a request: torch's host allocator rounds up to a power of two."""
    return 1 << max(0, size - 1).bit_length()


def loader_parts(workload: Workload, worker: ByteRange) -> tuple[Part, ...]:
    """Loader workers of `worker` bytes each, and the batches they and pinning keep."""
    host = workload.host
    batch = batch_bytes(workload)
    parts = []
    if host.loader_workers:
        count = host.loader_workers
        ahead = count * host.prefetch_factor * batch
        how = f"{count} x {worker.best_bytes / 2**20:g} MiB"
        source = "proportional set of torch DataLoader workers, measured"
        text = f"W x pages a worker owns ({host.worker_start})"
        size = ByteRange(*(count * each for each in _bounds(worker)))
        parts.append(Part("loader-workers", size, text, how, source, "low"))
        numbers = f"{count} x {host.prefetch_factor} x {batch:,} B"
        source = "torch.utils.data: each worker keeps prefetch_factor batches ready"
        size = ByteRange(ahead, ahead, 2 * ahead)
        text = "W x p x batch, in shared memory"
        parts.append(Part("loader-prefetch", size, text, numbers, source, "high"))
    if host.pin_memory:
        pinned = pinned_bytes(batch)
        size = ByteRange(pinned, 2 * pinned, 3 * pinned)
        text = "page-locked copies, rounded up to a power of two"
        source = "torch CachingHostAllocator rounds to powers of two"
        parts.append(Part("pinned-batches", size, text, f"2 x {pinned:,} B", source, "medium"))
    return tuple(parts)


def dataset_parts(workload: Workload) -> tuple[Part, ...]:
    """What each rank holds of the dataset, its workers' copies included.

    Mapped files are the page cache's. Forked workers share arrays; the pages of Python objects are
    copied when a worker reads them, since that counts a reference. Spawned workers get a copy.
    """
    data, host = workload.dataset, workload.host
    if data is None or not data.rows:
        return ()
    one, workers = sample_bytes(data), host.loader_workers
    parts = []
    if data.container in ("in-memory", "objects", "tf-data"):
        extra = OBJECT_BYTES if data.container == "objects" else 0
        size = data.rows * (one + extra)
        copies = 1 + (workers if host.worker_start != "fork" else 0)
        text = "rows x bytes, in each rank's process (and in spawned workers)"
        numbers = f"{copies} x {data.rows:,} x {one + extra:,} B"
        span = ByteRange(copies * size, copies * size, 2 * copies * size)
        source = "arrays in memory; a tokenising or decoding copy may live beside them"
        parts.append(Part("dataset", span, text, numbers, source, "medium"))
        if data.container == "objects" and workers and host.worker_start == "fork":
            parts.append(copied_on_write(data.rows, workers))
    if data.cached and data.container != "in-memory":
        size = data.rows * one
        text = "samples the pipeline keeps"
        span = ByteRange(size, size, size)
        parts.append(Part("cached-samples", span, text, f"{size:,} B", "cache()", "medium"))
    if data.shuffle_buffer:
        rows, times = min(data.shuffle_buffer, data.rows), max(1, workers)
        size = times * rows * one
        text = "max(W, 1) x samples in the shuffle buffer"
        numbers = f"{times} x {rows:,} x {one:,} B"
        source = "each worker has an iterator, and a buffer, of its own"
        parts.append(
            Part("shuffle-buffer", ByteRange(size, size, 2 * size), text, numbers, source, "medium")
        )
    return tuple(parts)


def copied_on_write(rows: int, workers: int) -> Part:
    """The heads of all objects, which each worker comes to copy, a page at a time."""
    size = workers * rows * COUNTED_BYTES
    text = "W x rows x bytes of the heads whose references are counted"
    numbers = f"{workers} x {rows:,} x {COUNTED_BYTES} B"
    source = "fork and reference counts; 0 to 70 MiB for 2 workers and 200,000 rows, measured"
    return Part("copied-on-write", ByteRange(0, size, 3 * size), text, numbers, source, "low")


def _bounds(size: ByteRange) -> tuple[int, int, int]:
    return size.low_bytes, size.best_bytes, size.high_bytes
