"""Settings that are stated and change no figure, and why not."""

from __future__ import annotations

from collections.abc import Iterator

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.layout import Layout
from sizewright_server.estimation.memory import Notice
from sizewright_server.estimation.workload import Inference, Training

CODE = "setting-changes-no-figure"


def idle_settings(model: Architecture, run: Training | Inference) -> tuple[Notice, ...]:
    """A notice for each."""
    found = [*_of_absent_layers(model, run)]
    if run.layout is not None:
        found += _of_layout(run.layout)
    return tuple(Notice(CODE, f"{name} changes no figure: {why}.") for name, why in found)


def _of_absent_layers(model: Architecture, run: Training | Inference) -> Iterator[tuple[str, str]]:
    """Kernels of layers that the model has none of."""
    training = isinstance(run, Training)
    stated = run.kernels.recurrence if isinstance(run, Training) else run.recurrence
    if stated is not None and not model.recurrent:
        field = "training.kernels" if training else "inference"
        yield f"{field}.recurrence", f"{model.model_type} has no recurrent layers"
    if run.attention.startswith("flash"):
        field = f"{'training' if training else 'inference'}.attention"
        blocks = [layers.style for layers in model.runs if layers.role == "block"]
        if all(style.mixer != "attention" for style in blocks):
            yield field, f"{model.model_type} has no attention"
        elif all(style.eager_only and not style.takes_flash for style in blocks):
            yield field, f"transformers has eager attention alone for {model.model_type}"


def _of_layout(layout: Layout) -> Iterator[tuple[str, str]]:
    if layout.zero_buffers.allgather_bucket_size is not None:
        yield (
            "zero_buffers.allgather_bucket_size",
            "DeepSpeed gathers updated shards into the parameters themselves"
            " (runtime/utils.py, all_gather_into_tensor_dp_groups)",
        )
    megatron = layout.megatron
    if megatron.fused_cross_entropy and megatron.cross_entropy_impl == "native":
        yield (
            "megatron.fused_cross_entropy",
            "the native fusion keeps the fp32 softmax as separate operators do, and batches their"
            " reductions (core/fusions/fused_cross_entropy.py)",
        )
    yield from _of_absent_dimensions(layout)
    yield from _of_other_libraries(layout)


def _of_absent_dimensions(layout: Layout) -> Iterator[tuple[str, str]]:
    """Settings of a dimension of one rank alone, and of buckets that are not there."""
    blank = Layout()
    for name, size, words in (
        ("pipeline_schedule", layout.pp, "there is no pipeline; pp is 1"),
        ("context_method", layout.cp, "samples are whole on every rank; cp is 1"),
        ("expert_imbalance", layout.ep, "every rank has every expert; ep is 1"),
    ):
        if size == 1 and getattr(layout, name) != getattr(blank, name):
            field = "context_parallel_method" if name == "context_method" else name
            yield field, words
    if layout.bucket_view and layout.sharding != "ddp":
        yield "gradient_as_bucket_view", f"it is of ddp's buckets, and {layout.sharding} has none"


def _of_other_libraries(layout: Layout) -> Iterator[tuple[str, str]]:
    """Settings of a library that does not shard here."""
    blank = Layout()
    for name, libraries in (
        ("zero_buffers", ("deepspeed",)),
        ("fsdp", ("fsdp1", "fsdp2")),
        ("megatron", ("megatron",)),
    ):
        if layout.sharding not in libraries and getattr(layout, name) != getattr(blank, name):
            yield name, f"{layout.sharding} shards here, which does not read it"
    first_only = ("forward_prefetch", "use_orig_params", "sync_module_states", "no_sync")
    if layout.sharding == "fsdp2":
        for name in first_only:
            if getattr(layout.fsdp, name):
                yield f"fsdp.{name}", "it is FSDP1's; fully_shard has no such argument"
