"""Which of Megatron-LM's arguments contradict the model, the run or each other, and why."""

from __future__ import annotations

from collections.abc import Iterator

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.layout import Layout
from sizewright_server.estimation.workload import Training

NARROW = ("fp8", "mxfp8")
#: Modules that only layers of experts have.
OF_EXPERTS = ("moe_act", "moe", "shared_experts")


def megatron_settings(
    architecture: Architecture, layout: Layout, training: Training
) -> Iterator[tuple[str, str]]:
    """Wrong fields under `parallelism.explicit`, each with what is wrong."""
    yield from _recomputation(architecture, layout, training)
    yield from _experts(architecture, layout)
    given = layout.megatron
    if given.fp8_param_gather and training.precision not in NARROW:
        yield (
            "megatron.fp8_param_gather",
            f"keeps weights that are computed with in fp8; precision is {training.precision}",
        )
    if given.precision_aware_optimizer and not layout.zero:
        yield (
            "megatron.precision_aware_optimizer",
            "is part of the distributed optimizer, which zero 1 stands for",
        )


def _recomputation(
    architecture: Architecture, layout: Layout, training: Training
) -> Iterator[tuple[str, str]]:
    field, modules = "megatron.recompute_modules", layout.megatron.recompute_modules
    if modules and training.checkpointing != "selective":
        yield field, "are for activation_checkpointing selective"
    if "mla_up_proj" in modules and not any(run.style.latent for run in architecture.runs):
        yield field, "mla_up_proj is of multi-latent attention, which the model has not"
    sparse = [name for name in modules if name in OF_EXPERTS]
    if sparse and not any(run.style.experts for run in architecture.runs):
        yield field, f"{', '.join(sparse)}: the model has no experts"
    delayed = [name for name in modules if name in ("moe_act", "layernorm")]
    if delayed and training.precision == "fp8":
        yield (
            field,
            f"{', '.join(delayed)}: Megatron-LM refuses them with delayed scaling, which fp8 is"
            " here; use mxfp8",
        )


def _experts(architecture: Architecture, layout: Layout) -> Iterator[tuple[str, str]]:
    given, experts = layout.megatron, max(run.sizes.experts for run in architecture.runs)
    if not experts:
        for name, stated in (
            ("expert_tensor_parallel_size", given.expert_tensor_parallel_size),
            ("expert_capacity_factor", given.expert_capacity_factor),
        ):
            if stated:
                yield f"megatron.{name}", "the model has no experts"
        return
    split = given.expert_tensor_parallel_size
    width = max(run.sizes.expert_ffn for run in architecture.runs)
    if split and width % split:
        yield (
            "megatron.expert_tensor_parallel_size",
            f"{split} does not divide an expert's feed-forward width {width}",
        )
    if given.pad_to_capacity and given.expert_capacity_factor is None:
        yield "megatron.pad_expert_input_to_capacity", "needs expert_capacity_factor"
