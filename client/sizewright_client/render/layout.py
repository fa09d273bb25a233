"""A parallel layout in a few words."""

from __future__ import annotations

from sizewright.v1 import estimate_pb2

_LIBRARIES = {"ddp": "DDP", "deepspeed": "DeepSpeed", "fsdp2": "FSDP2"}


def layout_words(layout: estimate_pb2.Layout) -> str:
    """Such as "1 GPU" or "8 GPUs: dp 8, ZeRO-3 (FSDP2)"."""
    gpus = f"{layout.gpus} {'GPU' if layout.gpus == 1 else 'GPUs'}"
    sizes = layout_sizes(layout)
    return f"{gpus}: {sizes}" if sizes else gpus


def layout_sizes(layout: estimate_pb2.Layout) -> str:
    """The sizes above 1 and the sharding, such as "dp 8, tp 2, ZeRO-3 (FSDP2)"; "" for one GPU."""
    words = [
        f"{name} {getattr(layout, name)}"
        for name in ("dp", "tp", "pp", "cp", "ep")
        if getattr(layout, name) > 1
    ]
    if layout.zero:
        library = _LIBRARIES.get(layout.implementation, layout.implementation)
        words.append(f"ZeRO-{layout.zero}" + (f" ({library})" if library else ""))
    if layout.sequence_parallel:
        words.append("sequence parallel")
    if layout.keep_gathered_after_forward:
        words.append("gathered kept")
    return ", ".join(words)
