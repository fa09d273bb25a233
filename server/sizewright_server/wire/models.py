"""What each section of a request must satisfy. Sizes are bounded far above any real job."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sizewright_server.estimation.techniques import (
    AdapterMethod,
    Compile,
    FloatType,
    Kernel,
    LossKernel,
    ModelingCode,
    PreferenceMethod,
    Reference,
    SelectivePolicy,
    TrainingLoop,
)
from sizewright_server.estimation.workload import (
    Attention,
    Cache,
    Checkpointing,
    CheckpointLoad,
    CheckpointSave,
    DatasetContainer,
    Precision,
    WorkerStart,
)

#: Longest sequence, largest batch: beyond them no product of sizes is meant seriously.
MAX_TOKENS = 16_777_216
MAX_BATCH = 1_048_576
MAX_RANKS = 65_536
MAX_ROWS = 2**53
MAX_PIXELS = 65_536

Count = Annotated[int, Field(ge=1, le=MAX_BATCH)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Ranks = Annotated[int, Field(ge=1, le=MAX_RANKS)]


class Section(BaseModel):
    """A strict, immutable section."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class TrainingSection(Section):
    """`training`."""

    precision: Precision
    micro_batch: Count
    seq_len: Tokens
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=MAX_BATCH)]
    checkpointing: Checkpointing
    attention: Attention
    padded_batches: bool
    gradient_reduce_dtype: Literal["fp32", "bf16"] | None
    image_size: Annotated[int, Field(ge=0, le=16_384)]
    target_len: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    expandable_segments: bool
    modeling_code: ModelingCode
    loop: TrainingLoop | None
    packed: bool
    seq_len_is_limit: bool
    multi_token_prediction_layers: Annotated[int, Field(ge=0, le=64)]
    variable_lengths: bool | None
    longest_batch_first: bool


class AdapterSection(Section):
    """`training.adapter`, its names apart."""

    method: AdapterMethod
    rank: Annotated[int, Field(ge=1, le=MAX_RANKS)]
    dropout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
    dtype: FloatType
    virtual_tokens: Annotated[int, Field(ge=1, le=MAX_RANKS)]


class BaseWeightsSection(Section):
    """`training.base_weights`."""

    format: Literal[
        "fp32",
        "bf16",
        "fp16",
        "nf4",
        "fp4",
        "int8",
        "gptq-int4",
        "gptq-int8",
        "awq-int4",
        "fp8",
        "mxfp4",
    ]
    group_size: Annotated[int, Field(ge=0, le=MAX_RANKS)]
    double_quantization: bool
    upcast_others: bool
    quantized_head: bool
    keeps_inputs: bool
    quantized_experts: bool


class KernelsSection(Section):
    """`training.kernels`; None leaves the modelling code's own."""

    loss: LossKernel | None
    loss_chunk_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    norm: Kernel | None
    mlp: Kernel | None
    rope: Kernel | None
    compile: Compile
    recurrence: Kernel | None


class PreferenceSection(Section):
    """`training.preference`."""

    method: PreferenceMethod
    reference: Reference


class CheckpointSection(Section):
    """`training.checkpoint_policy`."""

    every_layers: Annotated[int, Field(ge=1, le=MAX_RANKS)]
    selective: SelectivePolicy
    offload: bool


class StatesSection(Section):
    """`training.states`; None leaves what the precision implies."""

    master_weights: Literal["fp32", "none"] | None
    gradients: FloatType | None
    optimizer_state: FloatType | None
    moving_average: Literal["fp32", "bf16", "fp16", "none"] | None


class InferenceSection(Section):
    """`inference`."""

    engine: Literal["transformers", "pytorch"]
    weight_dtype: FloatType
    kv_dtype: FloatType
    batch: Count
    input_tokens: Tokens
    new_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    cache: Cache
    logits_to_keep: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    attention: Literal["eager", "sdpa", "flash-attention-2"]
    padded_batches: bool
    image_size: Annotated[int, Field(ge=0, le=16_384)]
    recurrence: Kernel | None


class DatasetSection(Section):
    """`dataset`."""

    rows: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    tokens_per_row: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    columns: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    dtype: Literal["int64", "int32", "int16", "uint8", "float64", "float32", "float16", "bfloat16"]
    container: DatasetContainer
    shuffle_buffer: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    cached: bool


class ImageSection(Section):
    """`dataset.image`."""

    height: Annotated[int, Field(ge=1, le=MAX_PIXELS)]
    width: Annotated[int, Field(ge=1, le=MAX_PIXELS)]
    channels: Annotated[int, Field(ge=1, le=4096)]


class AudioSection(Section):
    """`dataset.audio`."""

    seconds: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
    sample_rate_hz: Annotated[int, Field(ge=1, le=10_000_000)]
    channels: Annotated[int, Field(ge=1, le=1024)]


class HostSection(Section):
    """`host`."""

    loader_workers: Annotated[int, Field(ge=0, le=4096)]
    prefetch_factor: Annotated[int, Field(ge=1, le=1024)]
    pin_memory: bool
    checkpoint_load: CheckpointLoad
    checkpoint_save: CheckpointSave | None
    worker_start: WorkerStart
    kubernetes: bool
    container_limit_bytes: Annotated[int, Field(ge=0, le=2**60)]
    shared_memory_bytes: Annotated[int, Field(ge=0, le=2**60)]
    notebook: bool
    other_processes_bytes: Annotated[int, Field(ge=0, le=2**60)]


class ConstraintsSection(Section):
    """The numbers of `constraints`; its names are checked against the catalog."""

    max_nodes: Annotated[int, Field(ge=1, le=1024)]
    min_nodes: Annotated[int, Field(ge=1, le=1024)]
    min_gpus: Annotated[int, Field(ge=0, le=MAX_RANKS)]
    max_gpus: Annotated[int, Field(ge=0, le=MAX_RANKS)]
    min_vcpus: Annotated[int, Field(ge=0, le=MAX_RANKS)]
    headroom: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
    max_cost_per_hour_nanos_usd: Annotated[int, Field(ge=0, le=2**62)]
    max_price_age_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    min_local_disk_bytes: Annotated[int, Field(ge=0, le=2**60)]
    max_interruption: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None
    min_network_gbps: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    max_cost_per_job_nanos_usd: Annotated[int, Field(ge=0, le=2**62)]


class MachineMemorySection(Section):
    """`host_memory` of a machine."""

    nominal_bytes: Annotated[int, Field(ge=1, le=2**60)]
    usable_bytes: Annotated[int, Field(ge=0, le=2**60)]


class MachineDevicesSection(Section):
    """`accelerators` of a machine."""

    count: Annotated[int, Field(ge=1, le=1024)]
    slice: Annotated[float, Field(gt=0, le=1)]
    driver_total_bytes: Annotated[int, Field(ge=0, le=2**50)]
    usable_bytes: Annotated[int, Field(ge=0, le=2**50)]


class OwnershipSection(Section):
    """`ownership` of a machine."""

    purchase_price_nanos_usd: Annotated[int, Field(ge=0, le=2**62)]
    lifetime_years: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    power_watts: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
    electricity_per_kwh_nanos_usd: Annotated[int, Field(ge=0, le=10**12)]
    power_usage_effectiveness: Annotated[float, Field(ge=1, le=10, allow_inf_nan=False)]
    utilization: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    hosting_per_month_nanos_usd: Annotated[int, Field(ge=0, le=2**62)]


class NetworkSection(Section):
    """`network` of a machine."""

    bandwidth_gbps: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None
    fabric: Literal[
        "", "ethernet", "efa", "infiniband", "roce", "gpudirect-tcpx", "gpudirect-tcpxo"
    ]


class MachineSection(Section):
    """A machine: one of `machines`, or one to register."""

    name: Annotated[str, Field(pattern=r"^machines/[A-Za-z0-9._-]{1,63}$")]
    vcpus: Annotated[int, Field(ge=0, le=MAX_RANKS)]
    cpu_architecture: Literal["x86_64", "arm64"]
    host_memory: MachineMemorySection
    accelerators: MachineDevicesSection | None
    ownership: OwnershipSection | None
    cost_per_hour_nanos_usd: Annotated[int, Field(ge=0, le=2**62)]
    count: Annotated[int, Field(ge=1, le=MAX_RANKS)]
    local_disk_bytes: Annotated[int, Field(ge=0, le=2**60)] | None
    network: NetworkSection | None
