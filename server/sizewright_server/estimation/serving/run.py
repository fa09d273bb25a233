"""What is asked of a serving engine: values only, already validated by the caller."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.serving.rules import Version
from sizewright_server.estimation.workload import Attention, HostConditions, Layout, ModelSource

Engine: TypeAlias = Literal["vllm", "sglang", "transformers", "pytorch"]
#: Engines that take a share of a GPU's memory for a pool of cache blocks.
POOLED: tuple[Engine, ...] = ("vllm", "sglang")
ServingCache: TypeAlias = Literal["dynamic", "static", "quantised", "none"]


@dataclass(frozen=True, slots=True)
class Adapters:
    """LoRA adapters that are kept on the GPU at once."""

    count: int
    rank: int


@dataclass(frozen=True, slots=True)
class ServingRun:
    """One engine with its settings; None leaves a setting to the engine's own default.

    `batch` sequences of `input_tokens` prompt and `new_tokens` generated tokens run at once.
    `logits_to_keep` 0 keeps logits of every prompt position.
    """

    engine: Engine
    weight_type: str
    kv_type: str
    compute_type: Literal["fp32", "bf16", "fp16"]
    batch: int = 1
    input_tokens: int = 1
    new_tokens: int = 0
    version: Version | None = None
    generation: Literal["v0", "v1"] | None = None
    group_size: int | None = None
    utilization: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    block_tokens: int | None = None
    #: vLLM's LLM class, which batches more tokens by default than its server.
    offline: bool = False
    eager: bool = False
    chunked_prefill: bool | None = None
    shared_prefix_tokens: int = 0
    hybrid_cache: bool = True
    skip_encoder: bool = False
    attention_data_parallel: bool = False
    #: Tensor-parallel ranks that share each sequence's tokens (vLLM's decode context parallelism).
    decode_context_parallel: int = 1
    graphs_in_budget: bool | None = None
    swap_bytes: int | None = None
    cpu_offload_bytes: int = 0
    draft: ModelSource | None = None
    draft_tokens: int = 0
    adapters: Adapters | None = None
    cache: ServingCache = "dynamic"
    cache_tokens: int | None = None
    logits_to_keep: int = 1
    token_by_token: bool = False
    attention: Attention = "sdpa"
    #: What weight files hold, as the client read their headers.
    stored_bytes: int | None = None
    layout: Layout | None = None

    @property
    def tokens(self) -> int:
        """Tokens of one sequence at its end."""
        return self.input_tokens + self.new_tokens

    @property
    def version_words(self) -> str:
        """The engine's version as it is written, such as "0.11.0"; empty where none is stated."""
        return ".".join(map(str, self.version)) if self.version else ""


@dataclass(frozen=True, slots=True)
class ServingWorkload:
    """A model behind a serving engine."""

    model: ModelSource
    run: ServingRun
    name: str = ""
    host: HostConditions = field(default_factory=HostConditions)
    #: As of a `Workload`.
    kernel_loading: Literal["lazy", "eager"] | None = None
    cuda: str = ""

    @property
    def on_gpu(self) -> bool:
        """Engines are sized for GPUs."""
        return True


@dataclass(frozen=True, slots=True)
class ServingDevice:
    """A GPU as an engine sees it: what CUDA reports as its total, in bytes.

    `linked` GPUs talk over NVLink or its like. `sized_bytes` is the memory by which engines pick
    their default batches (0: that of a large GPU); `modest` ones get the small ones in spite of it.
    """

    name: str
    total: ByteRange
    vendor: str = "nvidia"
    linked: bool = False
    #: CUDA compute capability; 0 where it is not known.
    capability: float = 0.0
    sized_bytes: int = 0
    modest: bool = False


#: No device given: what a large data-centre GPU has; only defaults and doubts depend on it.
ANY_DEVICE = ServingDevice("any GPU", ByteRange(0, 0, 0), linked=True)
