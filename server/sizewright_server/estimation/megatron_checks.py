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
    yield from _ends(layout)
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


def megatron_stages(layers: int, layout: Layout) -> Iterator[tuple[str, str]]:
    """Whether a pipeline's stages get whole layers, evenly but for the two ends where stated."""
    given, pp = layout.megatron, layout.pp
    stated = [n for n in (given.first_stage_layers, given.last_stage_layers) if n]
    field = "megatron.decoder_last_pipeline_num_layers"
    if not given.last_stage_layers:
        field = "megatron.decoder_first_pipeline_num_layers"
    left, stages = layers - sum(stated), pp - len(stated)
    if not stated:
        pieces = pp * layout.virtual_stages
        if layers % pieces:
            yield (
                "pp",
                f"{layers} layers do not divide by {pieces} chunks, as Megatron-LM requires; state"
                " megatron.decoder_first_pipeline_num_layers or decoder_last_pipeline_num_layers",
            )
    elif not stages and left:
        yield field, f"both stages together have {sum(stated)} layers of {layers}"
    elif stages and (left < stages or left % stages):
        yield field, f"leaves {left} layers for {stages} other stages, which need as many each"


def further_layers(
    architecture: Architecture, layout: Layout | None, training: Training
) -> Iterator[tuple[str, str]]:
    """Wrong fields of `training`, each with what is wrong, where further tokens are predicted."""
    field = "multi_token_prediction_layers"
    if not training.multi_token_prediction_layers:
        return
    if layout is None or layout.sharding != "megatron":
        yield (
            field,
            "layers that predict further tokens are trained by Megatron-LM: state a layout with"
            " implementation megatron, or 0. Classes of transformers leave them out",
        )
    if len({run.sizes.stack for run in architecture.runs}) > 1 or not architecture.style.causal:
        yield field, "are of decoders alone"
    elif architecture.style.positions == "learned":
        yield field, "Megatron-LM trains them with rotary positions or none, not with learned ones"
    if training.preference is not None:
        yield field, "preference tuning has no loss for further tokens; use 0"


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


def _ends(layout: Layout) -> Iterator[tuple[str, str]]:
    given = layout.megatron
    for name, stated in (
        ("decoder_first_pipeline_num_layers", given.first_stage_layers),
        ("decoder_last_pipeline_num_layers", given.last_stage_layers),
    ):
        if stated and layout.pp == 1:
            yield f"megatron.{name}", "there is no pipeline; pp is 1"


def _experts(architecture: Architecture, layout: Layout) -> Iterator[tuple[str, str]]:
    given, experts = layout.megatron, max(run.sizes.experts for run in architecture.runs)
    if not experts:
        for name, stated in (
            ("expert_tensor_parallel_size", given.expert_tensor_parallel_size),
            ("expert_capacity_factor", given.expert_capacity_factor),
            ("overlap_moe_expert_parallel_comm", given.overlaps_experts),
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
    if given.overlaps_experts and layout.ep == 1:
        yield "megatron.overlap_moe_expert_parallel_comm", "experts are not shared out; ep is 1"
    if given.pad_to_capacity and given.expert_capacity_factor is None:
        yield "megatron.pad_expert_input_to_capacity", "needs expert_capacity_factor"
