"""Values that say which memory techniques a training run uses; validated by the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

FloatType: TypeAlias = Literal["fp32", "bf16", "fp16"]
ModelingCode: TypeAlias = Literal["transformers", "transformers-4.45", "litgpt", "llm-foundry"]
TrainingLoop: TypeAlias = Literal["plain", "trainer", "fabric"]
LossKernel: TypeAlias = Literal[
    "full",
    "shifted",
    "native",
    "compiled",
    "chunked",
    "fused",
    "fused-fp32",
    "tiled",
    "fused-linear",
    "cut",
]
Kernel: TypeAlias = Literal["eager", "fused"]
Compile: TypeAlias = Literal["none", "blocks", "model"]
SelectivePolicy: TypeAlias = Literal["matmuls", "attention", "mlp"]
PreferenceMethod: TypeAlias = Literal["dpo", "ipo", "kto", "orpo", "simpo", "cpo"]
Reference: TypeAlias = Literal["model", "adapter-off", "precomputed", "none"]
AdapterMethod: TypeAlias = Literal[
    "lora",
    "rslora",
    "lora-fa",
    "dora",
    "adalora",
    "vera",
    "loha",
    "lokr",
    "boft",
    "oft",
    "ia3",
    "layernorm-tuning",
    "prompt-tuning",
    "prefix-tuning",
    "p-tuning",
    "adaption-prompt",
    "adapter-v2",
]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A parameter-efficient method. `targets` are canonical names of linear layers.

    `rank` is the block size for "boft" and "oft"; `virtual_tokens` counts for the prompt methods.
    """

    method: AdapterMethod
    rank: int = 8
    targets: frozenset[str] = frozenset()
    dropout: float = 0.0
    dtype: FloatType = "fp32"
    trained_modules: frozenset[str] = frozenset()
    virtual_tokens: int = 20


@dataclass(frozen=True, slots=True)
class AdapterStyle:
    """What of an adapter decides the operators; its sizes do not."""

    method: AdapterMethod
    targets: frozenset[str]
    dropout: bool
    trained_modules: frozenset[str]
    code: ModelingCode


@dataclass(frozen=True, slots=True)
class BaseWeights:
    """How the frozen weights under an adapter are stored: a float type or a weight format."""

    format: str
    group_size: int = 0
    double_quantization: bool = False
    upcast_others: bool = False
    quantized_head: bool = False
    keeps_inputs: bool = False
    quantized_experts: bool = False


@dataclass(frozen=True, slots=True)
class Kernels:
    """Kernels in place of the modelling code's own; None leaves those."""

    loss: LossKernel | None = None
    loss_chunk_tokens: int = 0
    norm: Kernel | None = None
    mlp: Kernel | None = None
    rope: Kernel | None = None
    compile: Compile = "none"
    #: None where it is not known whether recurrent layers run in kernels of their own.
    recurrence: Kernel | None = None


@dataclass(frozen=True, slots=True)
class StateTypes:
    """Types of the model states; None leaves what the precision and the library imply."""

    master_weights: Literal["fp32", "none"] | None = None
    gradients: FloatType | None = None
    optimizer_state: FloatType | None = None
    moving_average: FloatType | None = None


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """Details of activation checkpointing."""

    every_layers: int = 1
    selective: SelectivePolicy = "matmuls"
    offload: bool = False


@dataclass(frozen=True, slots=True)
class Preference:
    """Preference tuning: two answers a sample, and where the reference's log-probabilities are."""

    method: PreferenceMethod
    reference: Reference
