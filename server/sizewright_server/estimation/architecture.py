"""What a front end makes of a model's configuration: a wiring style and its sizes.

The style is the structure: two models of one style share one tape and differ in numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sizewright_server.estimation.delta_shapes import CHUNK
from sizewright_server.estimation.recurrent import NO_RECURRENCE, RecurrentSizes
from sizewright_server.estimation.style import Style

__all__ = ["TIED_HEADS", "Architecture", "HeadStyle", "Role", "Run", "Sizes", "Style", "stacked"]

Role: TypeAlias = Literal["embedding", "block", "between", "head"]


#: Heads over the vocabulary, which may share the embedding's table.
TIED_HEADS = ("causal-lm", "masked-lm", "seq2seq-lm")


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of a model. Widths in elements; `position_rows` includes reserved rows."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    position_rows: int = 0
    token_types: int = 0
    embedding: int = 0
    rotary_dim: int = 0
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    embedding_dropout: float = 0.0
    label_count: int = 2
    #: Tokens that sliding attention sees; 0 where it sees all.
    window: int = 0
    #: Which stack of an encoder-decoder model the tokens belong to.
    stack: Literal["", "decoder"] = ""
    patches: int = 0
    special_tokens: int = 0
    patch_values: int = 0
    pixels: int = 0
    #: Rows of a table of relative positions.
    buckets: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    query_rank: int = 0
    latent_rank: int = 0
    latent_rotary: int = 0
    latent_plain: int = 0
    value_dim: int = 0
    #: Heads of an indexer, the width of one, and the keys that it chooses for a query.
    index_heads: int = 0
    index_head_dim: int = 0
    index_keys: int = 0
    #: Of a gated delta net; 0 heads in layers that attend.
    delta_heads: int = 0
    delta_key_heads: int = 0
    delta_key_dim: int = 0
    delta_value_dim: int = 0
    conv_kernel: int = 0
    #: Width in which experts work, where hidden states are projected to it.
    expert_latent: int = 0
    recurrent: RecurrentSizes = NO_RECURRENCE

    def __hash__(self) -> int:
        # Layers of a model differ in few of these, and dimensions are looked up by them.
        return hash((self.hidden, self.ffn, self.kv_heads, self.window, self.stack, self.vocab))

    def pads_chunks(self, tokens: int) -> bool:
        """Whether a recurrent layer's last chunk of so many tokens is not full."""
        return bool(self.delta_heads and tokens % CHUNK) or self.recurrent.pads(tokens)


@dataclass(frozen=True, slots=True)
class HeadStyle:
    """What stands on top of the last block."""

    kind: Literal[
        "causal-lm",
        "masked-lm",
        "seq2seq-lm",
        "sequence-classification",
        "image-classification",
        "none",
    ]
    tied: bool = False
    bias: bool = False
    #: BERT's dense, activation and norm before the vocabulary.
    transform: bool = False
    #: A dense layer and tanh over the first token.
    pooler: bool = False
    #: A dense layer and activation over the first token before the labels (RoBERTa).
    dense: bool = False
    logits_soft_cap: bool = False
    logits_scale: bool = False
    transform_bias: bool = True
    #: Labels from the class token and the mean of the patches.
    both_tokens: bool = False
    #: A second classifier beside the first, from another token (DeiT with a teacher).
    teacher: bool = False
    #: The decoder's embedding is the head's own table (Whisper).
    owns_table: bool = False
    #: A buffer is added to the logits (BART's final_logits_bias).
    logits_bias: bool = False
    #: Hidden states are scaled before the vocabulary (T5).
    scales_states: bool = False
    #: An adapter trains a copy of a table that embedding and head shared: they share none then.
    parted: bool = False
    #: `logits.float()` before the loss (transformers' ForCausalLMLoss).
    upcast_logits: bool = True
    #: The model's own logits are fp32: `lm_head(x).float()`.
    float_logits: bool = False

    @property
    def shares_table(self) -> bool:
        """Its product reads the embedding's own table."""
        return self.tied and self.kind in TIED_HEADS


@dataclass(frozen=True, slots=True)
class Run:
    """Equal segments in a row, wired by one style and with one set of sizes.

    `role`: "block" is a unit of checkpointing and sharding; "embedding", "between" (what joins two
    stacks) and "head" belong to the root. `lowering` names the function that writes it as a tape
    (`lowering.py`).
    """

    name: str
    role: Role
    lowering: str
    count: int
    style: Style
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model, ready to be lowered: its runs in the order of the forward pass.

    `style` and `sizes` are those of its first block, for questions about the model as a whole.
    """

    model_type: str
    style: Style
    sizes: Sizes
    head: HeadStyle
    runs: tuple[Run, ...]
    #: Made from sizes alone, of a model_type that is not known.
    generic: bool = False
    #: The vision tower whose weights are there and do not run; empty where there is none.
    tower: str = ""

    @property
    def chooses_keys(self) -> bool:
        """An indexer chooses the keys that attention sees (DeepSeek V3.2, GLM-5)."""
        return self.style.indexer != "none"

    @property
    def recurrent(self) -> bool:
        """Layers hand a state from token to token, in the place of attention."""
        return self.style.mixer != "attention"

    def __hash__(self) -> int:
        # Models that differ in nothing of this are rare, and what is made of them is kept by it.
        sizes = self.sizes
        return hash((self.model_type, sizes.layers, sizes.hidden, sizes.ffn, sizes.vocab))


def stacked(style: Style, sizes: Sizes, *blocks: Run) -> tuple[Run, ...]:
    """The runs of a model that is one stack: an embedding, blocks and a head.

    Without `blocks` every layer is the same.
    """
    middle = blocks or (Run("block", "block", "block", sizes.layers, style, sizes),)
    return (
        Run("embedding", "embedding", "embedding", 1, style, sizes),
        *middle,
        Run("head", "head", "head", 1, style, sizes),
    )
