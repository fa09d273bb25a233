"""What sparse attention over an indexer's choice does not run with, and why."""

from __future__ import annotations

from collections.abc import Iterator

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.layout import Layout
from sizewright_server.estimation.workload import Inference, Training


def sparse_attention(architecture: Architecture, layout: Layout) -> Iterator[tuple[str, str]]:
    """Wrong fields of a layout, each with what is wrong."""
    if not architecture.chooses_keys:
        return
    if layout.cp > 1:
        yield (
            "cp",
            f"the indexer of {architecture.model_type} chooses among all keys of a sample, which no"
            " rank has; use 1",
        )
    if layout.sharding == "megatron":
        yield (
            "implementation",
            f"the sparse attention of {architecture.model_type} is not described in Megatron-LM's"
            " layers, whose kernels for it change from release to release; fsdp2, deepspeed and ddp"
            " run transformers' own",
        )


def sparse_kernel(
    architecture: Architecture, run: Training | Inference
) -> Iterator[tuple[str, str]]:
    """Wrong fields of a run, each with what is wrong."""
    if architecture.chooses_keys and run.attention.startswith("flash"):
        yield (
            "attention",
            f"transformers runs the sparse attention of {architecture.model_type} through a mask,"
            f" which {run.attention} does not take; use sdpa or eager",
        )
