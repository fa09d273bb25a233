"""Explicit parallel layouts: messages to values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from sizewright.v1 import workload_pb2 as pb
from sizewright_server.estimation.layout import (
    FsdpSettings,
    Layout,
    MegatronSettings,
    OffloadTarget,
    PipelineSchedule,
    RecomputedModule,
    ZeroBuffers,
)
from sizewright_server.estimation.problems import Violation
from sizewright_server.wire.models import MAX_RANKS, Ranks, Section
from sizewright_server.wire.violations import from_pydantic

#: Longest buffer that is meant seriously, in elements.
MAX_ELEMENTS = 2**40

Elements = Annotated[int, Field(ge=0, le=MAX_ELEMENTS)] | None

SCHEDULES: dict[int, PipelineSchedule] = {
    pb.PIPELINE_SCHEDULE_UNSPECIFIED: "1f1b",
    pb.PIPELINE_SCHEDULE_ONE_F_ONE_B: "1f1b",
    pb.PIPELINE_SCHEDULE_GPIPE: "gpipe",
    pb.PIPELINE_SCHEDULE_ZERO_BUBBLE: "zero-bubble",
}
OFFLOADS: dict[int, OffloadTarget] = {
    pb.OFFLOAD_UNSPECIFIED: "none",
    pb.OFFLOAD_NONE: "none",
    pb.OFFLOAD_OPTIMIZER: "optimizer",
    pb.OFFLOAD_OPTIMIZER_AND_PARAMETERS: "optimizer-and-parameters",
    pb.OFFLOAD_NVME: "nvme",
    pb.OFFLOAD_NVME_WITH_PARAMETERS: "nvme-with-parameters",
}


class ZeroBuffersSection(Section):
    """`parallelism.explicit.zero_buffers`."""

    reduce_bucket_size: Elements = None
    allgather_bucket_size: Elements = None
    prefetch_bucket_size: Elements = None
    param_persistence_threshold: Elements = None
    max_live_parameters: Elements = None
    max_reuse_distance: Elements = None
    overlap_comm: bool | None = None
    contiguous_gradients: bool = True
    sub_group_size: Elements = None


class FsdpSection(Section):
    """`parallelism.explicit.fsdp`."""

    wrap: Literal["block", "block-and-tables"]
    forward_prefetch: bool
    backward_prefetch: bool = True
    limit_all_gathers: bool = True
    use_orig_params: bool | None = None
    sync_module_states: bool
    no_sync: bool


class MegatronSection(Section):
    """`parallelism.explicit.megatron`."""

    transformer_impl: Literal["transformer-engine", "local"]
    fp32_main_gradients: bool = True
    gradient_accumulation_fusion: bool = True
    vocab_multiple: Annotated[int, Field(ge=1, le=65_536)]
    fused_cross_entropy: bool
    cross_entropy_fusion_impl: Literal["native", "te"]
    recompute_modules: tuple[RecomputedModule, ...]
    expert_tensor_parallel_size: Annotated[int, Field(ge=0, le=MAX_RANKS)]
    precision_aware_optimizer: bool
    fp8_param_gather: bool
    expert_capacity_factor: Annotated[float, Field(gt=0, le=MAX_RANKS, allow_inf_nan=False)] | None
    pad_expert_input_to_capacity: bool
    decoder_first_pipeline_num_layers: Annotated[int, Field(ge=0, le=MAX_RANKS)]
    decoder_last_pipeline_num_layers: Annotated[int, Field(ge=0, le=MAX_RANKS)]
    overlap_moe_expert_parallel_comm: bool


class LayoutSection(Section):
    """`parallelism.explicit`. dp 0 fills the GPUs."""

    dp: Annotated[int, Field(ge=0, le=MAX_RANKS)]
    zero: Annotated[int, Field(ge=0, le=3)]
    tp: Ranks
    pp: Ranks
    cp: Ranks
    ep: Ranks
    implementation: Literal["ddp", "deepspeed", "fsdp1", "fsdp2", "megatron"]
    sequence_parallel: bool
    keep_gathered_after_forward: bool
    pipeline_schedule: Literal["1f1b", "gpipe", "zero-bubble"]
    virtual_pipeline_stages: Annotated[int, Field(ge=1, le=1024)]
    context_parallel_method: Literal["ring", "all-gather", "ulysses"]
    shard_size: Annotated[int, Field(ge=0, le=MAX_RANKS)]
    expert_imbalance: Annotated[float, Field(ge=1, le=MAX_RANKS, allow_inf_nan=False)] | None
    gradient_as_bucket_view: bool
    offload: Literal[
        "none", "optimizer", "optimizer-and-parameters", "nvme", "nvme-with-parameters"
    ]
    offload_activations: bool
    offload_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    zero_buffers: ZeroBuffersSection
    fsdp: FsdpSection
    megatron: MegatronSection


def read_layout(
    given: pb.ExplicitParallelism, path: str, problems: list[Violation]
) -> Layout | None:
    """The layout, or None with what is wrong noted in `problems`."""
    usual = {0: "ddp", 3: "fsdp2"}.get(given.zero, "deepspeed")
    values = {
        "dp": given.dp,
        "zero": given.zero,
        "tp": given.tp or 1,
        "pp": given.pp or 1,
        "cp": given.cp or 1,
        "ep": given.ep or 1,
        "implementation": given.implementation or usual,
        "sequence_parallel": given.sequence_parallel,
        "keep_gathered_after_forward": given.keep_gathered_after_forward,
        "pipeline_schedule": SCHEDULES.get(given.pipeline_schedule, "unknown"),
        "virtual_pipeline_stages": given.virtual_pipeline_stages or 1,
        "context_parallel_method": given.context_parallel_method or "ring",
        "shard_size": given.shard_size,
        "expert_imbalance": given.expert_imbalance or None,
        "gradient_as_bucket_view": given.gradient_as_bucket_view,
        "offload": OFFLOADS.get(given.offload, "unknown"),
        "offload_activations": given.offload_activations,
        "offload_share": given.offload_share or 1.0,
        "zero_buffers": _stated(given.zero_buffers),
        "fsdp": {
            "wrap": given.fsdp.wrap or "block",
            "forward_prefetch": given.fsdp.forward_prefetch,
            "sync_module_states": given.fsdp.sync_module_states,
            "no_sync": given.fsdp.no_sync,
        }
        | _stated(given.fsdp, optional_only=True),
        "megatron": {
            "transformer_impl": given.megatron.transformer_impl or "transformer-engine",
            "vocab_multiple": given.megatron.vocab_multiple or 128,
            "fused_cross_entropy": given.megatron.fused_cross_entropy,
            "cross_entropy_fusion_impl": given.megatron.cross_entropy_fusion_impl or "native",
            "recompute_modules": tuple(given.megatron.recompute_modules),
            "expert_tensor_parallel_size": given.megatron.expert_tensor_parallel_size,
            "precision_aware_optimizer": given.megatron.precision_aware_optimizer,
            "fp8_param_gather": given.megatron.fp8_param_gather,
            "expert_capacity_factor": given.megatron.expert_capacity_factor or None,
            "pad_expert_input_to_capacity": given.megatron.pad_expert_input_to_capacity,
            "decoder_first_pipeline_num_layers": given.megatron.decoder_first_pipeline_num_layers,
            "decoder_last_pipeline_num_layers": given.megatron.decoder_last_pipeline_num_layers,
            "overlap_moe_expert_parallel_comm": given.megatron.overlap_moe_expert_parallel_comm,
        }
        | _stated(given.megatron, optional_only=True),
    }
    try:
        section = LayoutSection.model_validate(values)
    except ValidationError as error:
        problems += from_pydantic(error, path)
        return None
    return _layout(section)


def _stated(
    message: pb.ZeroBuffers | pb.FsdpSettings | pb.MegatronSettings, *, optional_only: bool = False
) -> dict[str, Any]:
    """The fields that are set; of those without presence none where only optional ones count."""
    return {
        field.name: value
        for field, value in message.ListFields()
        if field.has_presence or not optional_only
    }


def _layout(section: LayoutSection) -> Layout:
    return Layout(
        dp=section.dp,
        zero=section.zero,
        tp=section.tp,
        sharding=section.implementation,
        sequence_parallel=section.sequence_parallel,
        keep_gathered=section.keep_gathered_after_forward,
        pp=section.pp,
        cp=section.cp,
        ep=section.ep,
        shard_size=section.shard_size,
        pipeline_schedule=section.pipeline_schedule,
        virtual_stages=section.virtual_pipeline_stages,
        context_method=section.context_parallel_method,
        expert_imbalance=section.expert_imbalance,
        bucket_view=section.gradient_as_bucket_view,
        offload=section.offload,
        offload_activations=section.offload_activations,
        offload_share=section.offload_share,
        zero_buffers=ZeroBuffers(**section.zero_buffers.model_dump()),
        fsdp=FsdpSettings(**section.fsdp.model_dump()),
        megatron=_megatron(section.megatron),
    )


def _megatron(section: MegatronSection) -> MegatronSettings:
    values = section.model_dump()
    return MegatronSettings(
        cross_entropy_impl=values.pop("cross_entropy_fusion_impl"),
        pad_to_capacity=values.pop("pad_expert_input_to_capacity"),
        first_stage_layers=values.pop("decoder_first_pipeline_num_layers"),
        last_stage_layers=values.pop("decoder_last_pipeline_num_layers"),
        overlaps_experts=values.pop("overlap_moe_expert_parallel_comm"),
        **values,
    )
