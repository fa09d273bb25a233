"""A parallel layout: the sizes of its dimensions, and the settings of the library that shards.

What a setting's None means is the library's own default where one exists, and a wider interval
where the default is not what people run with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias

Sharding: TypeAlias = Literal["ddp", "deepspeed", "fsdp1", "fsdp2", "megatron"]
PipelineSchedule: TypeAlias = Literal["1f1b", "gpipe", "zero-bubble"]
ContextMethod: TypeAlias = Literal["ring", "all-gather", "ulysses"]
OffloadTarget: TypeAlias = Literal[
    "none", "optimizer", "optimizer-and-parameters", "nvme", "nvme-with-parameters"
]
FsdpWrap: TypeAlias = Literal["block", "block-and-tables"]
RecomputedModule: TypeAlias = Literal[
    "core_attn", "moe_act", "layernorm", "mla_up_proj", "mlp", "moe", "shared_experts"
]


@dataclass(frozen=True, slots=True)
class ZeroBuffers:
    """DeepSpeed's buffer sizes in elements, and its switches; None is not stated."""

    reduce_bucket_size: int | None = None
    allgather_bucket_size: int | None = None
    prefetch_bucket_size: int | None = None
    param_persistence_threshold: int | None = None
    max_live_parameters: int | None = None
    max_reuse_distance: int | None = None
    overlap_comm: bool | None = None
    contiguous_gradients: bool = True
    sub_group_size: int | None = None


@dataclass(frozen=True, slots=True)
class FsdpSettings:
    """What FSDP wraps, and how far it gathers ahead."""

    wrap: FsdpWrap = "block"
    forward_prefetch: bool = False
    backward_prefetch: bool = True
    limit_all_gathers: bool = True
    use_orig_params: bool | None = None
    sync_module_states: bool = False
    no_sync: bool = False


@dataclass(frozen=True, slots=True)
class MegatronSettings:
    """Megatron-LM's arguments, at their defaults."""

    transformer_impl: Literal["transformer-engine", "local"] = "transformer-engine"
    fp32_main_gradients: bool = True
    gradient_accumulation_fusion: bool = True
    vocab_multiple: int = 128
    fused_cross_entropy: bool = False
    cross_entropy_impl: Literal["native", "te"] = "native"
    recompute_modules: tuple[RecomputedModule, ...] = ()
    expert_tensor_parallel_size: int = 0
    precision_aware_optimizer: bool = False
    fp8_param_gather: bool = False
    expert_capacity_factor: float | None = None
    pad_to_capacity: bool = False
    #: Layers of a pipeline's first and last stage; 0 shares out evenly.
    first_stage_layers: int = 0
    last_stage_layers: int = 0
    #: A micro-batch's layers run forward beside another's that run backward.
    overlaps_experts: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A parallel layout; `gpus` is the product of the sizes.

    `zero` 0 replicates model states over the data-parallel ranks, 1 to 3 shard them as ZeRO does.
    Expert-parallel ranks are taken from the data-, context- and tensor-parallel ones.
    """

    dp: int = 1
    zero: int = 0
    tp: int = 1
    sharding: Sharding = "ddp"
    sequence_parallel: bool = False
    keep_gathered: bool = False
    pp: int = 1
    cp: int = 1
    ep: int = 1
    shard_size: int = 0
    pipeline_schedule: PipelineSchedule = "1f1b"
    virtual_stages: int = 1
    context_method: ContextMethod = "ring"
    expert_imbalance: float | None = None
    bucket_view: bool = False
    offload: OffloadTarget = "none"
    offload_activations: bool = False
    offload_share: float = 1.0
    zero_buffers: ZeroBuffers = ZeroBuffers()
    fsdp: FsdpSettings = FsdpSettings()
    megatron: MegatronSettings = MegatronSettings()

    def __hash__(self) -> int:
        # Settings are left out: layouts that differ in nothing else are rare, and hashing is hot.
        sizes = (self.dp, self.zero, self.tp, self.pp, self.cp, self.ep, self.shard_size)
        return hash((sizes, self.sharding, self.sequence_parallel, self.offload))

    @property
    def gpus(self) -> int:
        """Ranks in all."""
        return self.dp * self.tp * self.pp * self.cp

    @property
    def shard_ranks(self) -> int:
        """Ranks over which a state that is sharded is split; context-parallel ranks count."""
        return self.shard_size or self.dp * self.cp


@lru_cache(maxsize=65_536)
def structure(layout: Layout) -> Layout:
    """The layout with its sizes taken away: layouts with the same share one schedule."""
    return replace(
        layout,
        dp=1,
        zero=min(layout.zero, 2),
        tp=1,
        keep_gathered=False,
        pp=1,
        cp=1,
        ep=min(layout.ep, 2),
        shard_size=0,
    )
