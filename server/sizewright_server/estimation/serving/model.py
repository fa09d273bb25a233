"""A model as a serving engine sees it: weight tensors and caches, layer by layer.

Shapes only. Bytes depend on the quantisation (`quantisation`), the rank (`weights`) and the
engine's pages (`caches`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

#: How tensor parallelism divides a tensor: `heads` over attention heads (`latent-heads` is the
#: up-projection of a latent), `kv-heads` over key/value heads (never below one head per rank),
#: `width` over rows or columns, `vocabulary` over padded rows, `experts` like `width` or over whole
#: experts, `none` on every rank.
Split: TypeAlias = Literal[
    "heads", "kv-heads", "latent-heads", "width", "vocabulary", "experts", "none"
]

#: What a quantiser does with a tensor: `attention`, `linear` and `experts` are converted, the rest
#: stays: `vector` are norms and biases, a `buffer` is no parameter.
Role: TypeAlias = Literal[
    "attention", "linear", "experts", "router", "head", "embedding", "vector", "vision", "buffer"
]

CacheKind: TypeAlias = Literal["full", "sliding", "chunked", "latent", "state", "cross", "none"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """`count` equal matrices of `rows` outputs by `columns` inputs; vectors have one column.

    `itemsize` is set where a model keeps a tensor in a type of its own whatever the rest is.
    """

    role: Role
    rows: int
    columns: int = 1
    count: int = 1
    split: Split = "none"
    itemsize: int | None = None

    @property
    def parameters(self) -> int:
        """Parameters in all."""
        return 0 if self.role == "buffer" else self.elements

    @property
    def elements(self) -> int:
        """Elements in all, those of buffers too."""
        return self.rows * self.columns * self.count


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What one layer keeps per sequence.

    Token caches have `kv_heads` heads of `key_dim` and `value_dim`. `latent` is one vector of
    `key_dim` for all heads (MLA), not divided by tensor parallelism; where it is kept expanded,
    each of `kv_heads` heads takes `value_dim`, keys and values together. `state` is a recurrent
    state of fixed size: `conv_elements` in the model's type and `state_elements` of
    `state_itemsize` bytes (0: of the model's type too), both divided by tensor parallelism.
    """

    kind: CacheKind
    kv_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    #: Tokens of a window or chunk; encoder tokens of a cross-attention cache.
    span: int = 0
    conv_elements: int = 0
    state_elements: int = 0
    state_itemsize: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One kind of layer."""

    tensors: tuple[Tensor, ...]
    cache: LayerCache

    @property
    def parameters(self) -> int:
        """Elements of its tensors."""
        return sum(tensor.parameters for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Experts:
    """The routed experts of a sparse layer."""

    count: int
    per_token: int
    width: int


@dataclass(frozen=True, slots=True)
class Encoder:
    """A vision tower with its projector: `tokens` are what the largest image becomes."""

    tensors: tuple[Tensor, ...]
    hidden: int
    ffn: int
    layers: int
    tokens: int
    patches: int

    @property
    def parameters(self) -> int:
        """Elements of its tensors."""
        return sum(tensor.parameters for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A decoder for serving. `order` names the layer kind (index into `layers`) of each layer."""

    model_type: str
    layers: tuple[Layer, ...]
    order: tuple[int, ...]
    embedding: tuple[Tensor, ...]
    head: tuple[Tensor, ...]
    final_norm: tuple[Tensor, ...]
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    positions: int
    #: Width and rows of the tables of rotary cosines and sines that engines keep.
    rotary_dim: int
    rotary_positions: int = 0
    gated: bool = True
    experts: Experts | None = None
    encoder: Encoder | None = None
    tied: bool = False
    #: Booleans of causal masks that transformers keeps as buffers.
    mask_elements: int = 0
    #: Whether an encoder reads the prompt and the decoder starts anew. `source_tokens` are those of
    #: every source where they are fixed (Whisper's 30 seconds); 0: the prompt's.
    encoder_decoder: bool = False
    source_tokens: int = 0
    #: Stated in the configuration: quantisation method, and what its file says of it.
    quantisation: dict[str, object] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Parameters in all, tied tensors once."""
        times = Counter(self.order)
        total = sum(n * self.layers[kind].parameters for kind, n in times.items())
        for group in (self.embedding, self.head, self.final_norm):
            total += sum(tensor.parameters for tensor in group)
        return total + (self.encoder.parameters if self.encoder else 0)

    @property
    def layer_words(self) -> str:
        """How many layers there are, of each side where there are two."""
        if not self.encoder_decoder:
            return f"{len(self.order)} layers"
        decoder = sum(cache.kind == "cross" for cache in self.caches)
        return f"{len(self.order) - 2 * decoder} + {decoder} layers"

    @property
    def caches(self) -> tuple[LayerCache, ...]:
        """The cache of every layer, in order."""
        return tuple(self.layers[kind].cache for kind in self.order)
