"""What is to be estimated: values only, already validated by the caller.

Sizes are counts (samples, tokens, ranks); nothing here is in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sizewright_server.estimation.layout import Layout as Layout
from sizewright_server.estimation.layout import OffloadTarget
from sizewright_server.estimation.layout import Sharding as Sharding
from sizewright_server.estimation.techniques import (
    Adapter,
    BaseWeights,
    CheckpointPolicy,
    Kernel,
    Kernels,
    ModelingCode,
    Preference,
    StateTypes,
    TrainingLoop,
)

Precision: TypeAlias = Literal[
    "fp32", "tf32", "bf16", "fp16", "bf16-mixed", "fp16-mixed", "fp8", "mxfp8", "nvfp4"
]
Attention: TypeAlias = Literal["eager", "sdpa", "flash-attention-2", "flash-attention-3"]
Checkpointing: TypeAlias = Literal["none", "full", "selective"]
StepKind: TypeAlias = Literal["foreach", "fused", "for-loop"]
Cache: TypeAlias = Literal["dynamic", "static", "none"]
Head: TypeAlias = Literal[
    "causal-lm",
    "masked-lm",
    "pretraining",
    "sequence-classification",
    "image-classification",
    "none",
]
CheckpointLoad: TypeAlias = Literal[
    "safetensors",
    "torch-load",
    "torch-load-into",
    "torch-load-mmap",
    "rank-0-broadcast",
    "sharded",
    "random-init",
]
CheckpointSave: TypeAlias = Literal[
    "full", "full-weights", "half-weights", "sharded", "sharded-async", "none"
]
WorkerStart: TypeAlias = Literal["fork", "spawn", "forkserver"]
DatasetContainer: TypeAlias = Literal[
    "memory-mapped", "in-memory", "objects", "streaming", "tf-data"
]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A Hugging Face configuration, from a preset or from the caller, and the head on top of it."""

    config: dict[str, Any]
    preset: str | None = None
    head: Head | None = None
    label_count: int | None = None
    #: An unknown model_type is taken as a generic transformer.
    generic: bool = False


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An optimizer by name (an entry of `data/optimizers.json`) and how its step runs.

    `rank` is that of a projected gradient; `in_backward` steps a parameter when its gradient is
    there and frees the gradient.
    """

    name: str
    step: StepKind = "foreach"
    rank: int = 128
    in_backward: bool = False


@dataclass(frozen=True, slots=True)
class Training:
    """Forward, backward and optimizer steps. `layout` None lets the planner choose."""

    precision: Precision
    optimizer: Optimizer
    micro_batch: int
    seq_len: int
    gradient_accumulation_steps: int = 1
    checkpointing: Checkpointing = "none"
    attention: Attention = "sdpa"
    padded_batches: bool = False
    image_size: int | None = None
    #: Tokens of the decoder, where the model has an encoder too; 0 means as many as the encoder's.
    target_len: int = 0
    #: The step runs on fake tensors, by a build without CUDA kernels: activations' backward passes
    #: are separate operators, and gradients are never added up in place.
    traced: bool = False
    gradient_reduce_dtype: Literal["fp32", "bf16"] | None = None
    layout: Layout | None = None
    #: What leaves the GPU in the layouts that are tried where `layout` is None.
    offload: OffloadTarget = "none"
    expandable_segments: bool = False
    variable_lengths: bool | None = None
    #: The longest batch is the run's first: nothing of an earlier one is there.
    longest_batch_first: bool = False
    modeling_code: ModelingCode = "transformers"
    loop: TrainingLoop | None = None
    kernels: Kernels = field(default_factory=Kernels)
    preference: Preference | None = None
    states: StateTypes = field(default_factory=StateTypes)
    adapter: Adapter | None = None
    base_weights: BaseWeights | None = None
    checkpoint_policy: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    packed: bool = False
    seq_len_is_limit: bool = False
    #: Layers beyond the last, each with a loss for one token further (Megatron-LM).
    multi_token_prediction_layers: int = 0

    @property
    def rows(self) -> int:
        """Sequences in a forward pass: preference tuning has two for each sample."""
        return self.micro_batch * (1 if self.preference is None else 2)


@dataclass(frozen=True, slots=True)
class Inference:
    """A prefill and, where `new_tokens` is above 0, the decode that follows it.

    `logits_to_keep` is the number of prompt positions that get logits; 0 means all of them.
    """

    engine: Literal["transformers", "pytorch"]
    weight_dtype: Literal["fp32", "bf16", "fp16"]
    kv_dtype: Literal["fp32", "bf16", "fp16"]
    batch: int
    input_tokens: int
    new_tokens: int
    cache: Cache
    logits_to_keep: int
    attention: Attention = "sdpa"
    padded_batches: bool = False
    image_size: int | None = None
    #: Tokens the decoder starts with, where the model has an encoder too.
    target_tokens: int = 1
    #: Runs on fake tensors, whose model is made in place and not loaded.
    traced: bool = False
    layout: Layout | None = None
    #: None where it is not known whether recurrent layers run in kernels of their own.
    recurrence: Kernel | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The data, as far as it is stated."""

    rows: int = 0
    tokens_per_row: int = 0
    columns: int = 0
    dtype: str = "int64"
    container: DatasetContainer = "memory-mapped"
    #: Elements of one decoded image or clip; 0 where rows are tokens or columns.
    sample_elements: int = 0
    shuffle_buffer: int = 0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class HostConditions:
    """What runs beside the model on each node. Loader workers are counted per rank.

    The last five say what a job can have of a node (`planning.conditions`), not what it needs.
    `checkpoint_save` None is "sharded" for sharded training and "full" for the rest.
    """

    loader_workers: int = 0
    prefetch_factor: int = 2
    pin_memory: bool = False
    checkpoint_load: CheckpointLoad = "safetensors"
    checkpoint_save: CheckpointSave | None = None
    worker_start: WorkerStart = "fork"
    kubernetes: bool = False
    container_limit_bytes: int = 0
    shared_memory_bytes: int = 0
    notebook: bool = False
    other_processes_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload: a PyTorch model that trains or infers."""

    model: ModelSource
    run: Training | Inference
    name: str = ""
    framework: Literal["pytorch"] = "pytorch"
    dataset: Dataset | None = None
    host: HostConditions = field(default_factory=HostConditions)
    #: How CUDA loads kernels; None where no version says so.
    kernel_loading: Literal["lazy", "eager"] | None = None
    #: The release of CUDA it runs with, such as "12.4"; empty where none is stated.
    cuda: str = ""

    @property
    def on_gpu(self) -> bool:
        """Whether GPUs are used."""
        return True
