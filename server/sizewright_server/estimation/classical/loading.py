"""What feeds and what saves a network on the CPU: data loaders and checkpoints."""

from __future__ import annotations

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.estimate import host_estimate
from sizewright_server.estimation.classical.network import TORCH, first_step, torch_process
from sizewright_server.estimation.classical.network_stages import F4
from sizewright_server.estimation.classical.parts import EXACT, Doubt, Moment, part
from sizewright_server.estimation.host_data import OBJECT_BYTES, copied_on_write
from sizewright_server.estimation.memory import MemoryEstimate, Part

SERIALIZATION = "torch/serialization.py"
#: Pages of a mapped file: resident once they are read, and the kernel's to take back.
PAGES = Doubt(0.0, 1.05, "medium")


def loader_parts(
    rows: int,
    batch_bytes: int,
    workers: int,
    prefetch: int,
    *,
    start: str = "fork",
    objects: bool = False,
) -> tuple[Part, ...]:
    """A torch DataLoader that shuffles: its order, the batches in flight, and its workers.

    The shuffled order is a Python list of ints beside its tensor. `objects` says that every row is
    a Python object: reading it counts a reference, which copies the page of its head.
    """
    flying = 2 + workers * prefetch
    order = "torch/utils/data/sampler.py RandomSampler"
    shown = f"{flying} x {batch_bytes:,} B"
    text = "(2 + workers x prefetch) x batch"
    source = "torch/utils/data/dataloader.py"
    made = [
        part("sampler", rows * 48, "tensor 8, list 8 and int 32 a row", f"{rows:,}", order),
        part("batches", batch_bytes * flying, text, shown, source),
    ]
    if workers:
        each = constant("process", "loader_worker" if start == "fork" else "spawned_worker")
        made.append(each.part("loader-workers", f"workers x pages of their own ({start})", workers))
        if objects and start == "fork":
            made.append(copied_on_write(rows, workers))
    return tuple(made)


def estimate_loader(
    rows: int, columns: int, batch: int, workers: int, prefetch: int, *, objects: bool = False
) -> MemoryEstimate:
    """A training loop's loader over float32 rows in memory, the model left out."""
    width = columns * F4 + (OBJECT_BYTES if objects else 0)
    parts = (
        *torch_process(),
        part("dataset", rows * width, "rows x bytes", f"{rows:,} x {width:,} B", TORCH, EXACT),
        part("target", rows * 8, "rows x 8 B", f"{rows:,} x 8 B", TORCH, EXACT),
        *loader_parts(rows, batch * columns * F4, workers, prefetch, objects=objects),
        *first_step(training=False),
        constant("process", "training_loop").part("training-loop", "the optimizer's imports"),
    )
    scope = "process tree" if workers else "process"
    return host_estimate((Moment("epoch", parts),), "pytorch loader", scope)


def loaded_parts(how: str, size: int) -> tuple[Part, ...]:
    """A checkpoint of `size` bytes on its way into a model that is in memory already.

    torch.load without mmap reads every tensor into memory beside the model; mapped files, and
    safetensors, are read page by page while the tensors are copied.
    """
    numbers = f"{size:,} B"
    if how in ("torch-load", "torch-load-into"):
        return (part("state", size, "the state dict", numbers, SERIALIZATION, EXACT),)
    if how in ("torch-load-mmap", "safetensors"):
        text = "pages of the mapped file that were read"
        return (part("mapped-state", size, text, numbers, SERIALIZATION, PAGES),)
    return ()


def saved_parts(size: int) -> tuple[Part, ...]:
    """What a checkpoint of `size` bytes costs beside the tensors: it is streamed to its file.

    torch.save and safetensors write a tensor's own memory on the CPU: 0 to 1 MiB over 1 GB of
    tensors, measured.
    """
    span = Doubt(0.0, 1.0, "medium")
    text = "tensors are written from their own memory"
    return (part("checkpoint-buffers", min(size, 2**20), text, "1 MiB", SERIALIZATION, span),)


def estimate_checkpoint(
    operation: str, parameters: int, *, mapped: bool, touched: bool, item_bytes: int = F4
) -> MemoryEstimate:
    """A process that saves, loads, or loads into a model, parameters of `item_bytes`.

    A mapped file's pages arrive when they are touched, and count as resident.
    """
    size = parameters * item_bytes
    numbers = f"{parameters:,} x {item_bytes} B"
    state = part("state", size, "parameters x bytes", numbers, SERIALIZATION, EXACT)
    text = "touched pages of the file"
    pages = part("mapped-state", size, text, f"{size:,} B", SERIALIZATION, EXACT)
    seen = (pages,) if touched else ()
    base = torch_process()
    moments = {
        "save": (Moment("save", (*base, state, *saved_parts(size))),),
        "load": (Moment("load", (*base, *(seen if mapped else (state,)))),),
        "load-into": (
            Moment("model", (*base, state)),
            Moment("load", (*base, state, pages if mapped else state)),
        ),
    }[operation]
    return host_estimate(moments, f"checkpoint {operation}", "process")
