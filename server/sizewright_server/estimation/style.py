"""How a transformer block is wired: the structure that two models of one family share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Norm: TypeAlias = Literal[
    "rms",
    "rms-offset",
    "rms-wide",
    "rms-promoting",
    "layer",
    "layer-plain",
    "layer-offset",
    "layer-python",
    "layer-by-hand",
]
Order: TypeAlias = Literal[
    "pre", "post", "parallel", "parallel-two-norms", "sandwich", "inner-post"
]
Activation: TypeAlias = Literal[
    "fused", "silu", "gelu-new", "gelu-fast", "quick-gelu", "relu-squared", "bloom"
]
Positions: TypeAlias = Literal["rope", "learned", "alibi", "none"]


@dataclass(frozen=True, slots=True)
class Style:
    """How a transformer block is wired.

    `order`: where the norms sit. "pre" before each half; "post" after each residual sum (BERT);
    "parallel" attention and MLP side by side on one norm; "parallel-two-norms" on one norm each;
    "sandwich" before and after each half (Gemma 2); "inner-post" after each half alone (OLMo 2).
    """

    norm: Norm
    order: Order
    positions: Positions
    gated_mlp: bool
    norm_bias: bool = True
    #: One weight each; one weight and `split` or `chunk`; one weight and a slice each.
    qkv: Literal["separate", "split", "sliced"] = "separate"
    fused_gate_up: bool = False
    qkv_bias: bool = False
    key_bias: bool = True
    out_bias: bool = False
    #: Its last projection as adapters know it: apart from that of recurrent layers beside it.
    out_name: Literal["o", "attention-out"] = "o"
    mlp_bias: bool = False
    #: Over one head with shared weights, over all heads at once, with weights of each head, or
    #: without weights on what was turned (Llama 4).
    qk_norm: Literal["none", "head", "full", "heads", "plain"] = "none"
    #: Normed as soon as projected, before the next projection.
    qk_norm_early: bool = False
    #: The queries' projection has a gate beside every head: what attention gives is scaled by it.
    output_gate: bool = False
    #: Sines and cosines for every sample: a position has several axes (Qwen3.5).
    rotary_per_sample: bool = False
    #: "partial" rotates a slice of each head and concatenates the rest.
    rotary: Literal["full", "partial"] = "full"
    #: Turned in fp32: the vectors are copied before, or each time they are read.
    rotary_fp32: Literal["no", "before", "each"] = "no"
    #: Its attention has names for the parts of queries and keys that are turned and that are not.
    names_rotary_parts: bool = False
    activation: Activation = "fused"
    activation_saves: Literal["input", "output"] = "input"
    #: Attention probabilities in fp32 whatever the activations are (`softmax(dtype=float32)`).
    softmax_fp32: bool = False
    scale_query_first: bool = False
    #: Its forward method keeps the embeddings in a name: those the first block reads ("same"), or
    #: looked-up ones that went into a sum or dropout ("own").
    holds_embeddings: Literal["no", "same", "own"] = "same"
    #: Pairs of cos and sin tables: one for each kind of layer that turns by another base.
    rotary_tables: int = 1
    #: Layers with and without a sliding window: each kind has a mask of its own.
    mixed_windows: bool = False
    #: The block keeps a name for what attention gave until it returns (GPT-2).
    holds_attended: bool = False
    #: It keeps a name for what its first norm gave (StableLM).
    holds_normed: bool = False
    #: The loop over the blocks has a name for what the block before gave, eager attention's
    #: probabilities among it (`outputs = block(...)`).
    keeps_outputs: bool = False
    #: Eager attention has a name for the scores as multiplied, scaled in place, beside the masked
    #: ones: until the softmax is made (Falcon) or until it returns (BLOOM).
    names_scores: Literal["no", "softmax", "whole"] = "no"
    embedding_norm: bool = False
    embedding_scale: bool = False
    token_types: bool = False
    final_norm: bool = True
    residual_scale: bool = False
    causal: bool = True
    #: Its decoder has a configuration of its own, whose cache a training loop leaves on (T5).
    trains_with_cache: bool = False
    #: Its attention sees a window of the latest tokens.
    sliding: bool = False
    #: The family has no fused attention, whatever is asked for.
    eager_only: bool = False
    #: But flash attention, which caps scores, scales queries before and knows sinks.
    takes_flash: bool = False
    #: Eager attention multiplies fp32 copies of queries and keys.
    eager_fp32_scores: bool = False
    #: One key/value head is broadcast to the query heads inside the kernel (Falcon 7B).
    broadcasts_heads: bool = False
    #: A causal mask over all positions is a buffer: one of the model's, or one in each block.
    mask_buffer: Literal["no", "model", "block"] = "no"
    #: Each block has a buffer of sines and cosines over all positions, in fp32 (GPT-J).
    position_buffer: bool = False
    #: A bias by distance in fp32 makes the scores fp32; the mask is filled in, not added (MPT).
    alibi_widens: bool = False
    #: Hidden states in fp16 are clamped: after every sum (T5), at an encoder block's end, or there
    #: where they are not finite, which a trace cannot know and takes for granted.
    clamps: Literal["no", "sums", "encoder", "encoder-infinite"] = "no"
    #: A mask is built and given to the kernel whether or not there is padding.
    always_masked: bool = False
    #: Attention scores pass a scaled tanh.
    score_soft_cap: bool = False
    #: Queries are laid out head by head, as concatenating parts of heads leaves them.
    heads_first: bool = False
    mlp_inner_dropout: bool = False
    #: A mixture of experts in the place of the feed-forward layer.
    experts: bool = False
    router: Literal["softmax", "sigmoid"] = "softmax"
    router_fp32: bool = False
    router_bias: bool = False
    router_normalises: bool = True
    #: The chosen experts' scores are cast to the hidden states' type.
    router_casts: bool = False
    #: Every expert runs on every token, whose copy is scaled by the router's score (Llama 4).
    dense_experts: bool = False
    expert_bias: bool = False
    #: Experts work in a narrower space, to which hidden states are projected (Nemotron-H).
    latent_experts: bool = False
    expert_gate: Literal["plain", "clamped", "none"] = "plain"
    shared_expert: Literal["none", "plain", "gated"] = "none"
    shared_expert_first: bool = False
    #: Keys and values are copied to every query head before they are turned (litgpt).
    repeats_first: bool = False
    #: One kernel for the norm, for activation and gate, for turning queries and keys: it saves its
    #: inputs (and a number a row) alone.
    fused_norm: bool = False
    fused_mlp: bool = False
    fused_rope: bool = False
    #: Those kernels write over what they were given or have saved (Liger).
    kernels_in_place: bool = False
    #: A learned score that takes part in every softmax and is dropped after it (gpt-oss).
    sinks: bool = False
    #: Multi-head latent attention (DeepSeek): keys and values from one compressed vector.
    latent: bool = False
    latent_queries: bool = False
    #: Sparse attention over the keys that an indexer chooses (DeepSeek V3.2, GLM-5), which turns
    #: its heads by halves or pair by pair; "shared" has none, and sees what a block before chose.
    indexer: Literal["none", "halves", "pairs", "shared"] = "none"
    #: Every block hands the choice on to the next (GLM-5).
    hands_keys: bool = False
    #: Dropout on what attention gives (DistilBERT has none).
    attention_out_dropout: bool = True
    #: Where embeddings of another width than the hidden states are projected.
    embedding_projection: Literal["none", "lookup", "before-norm", "after-norm"] = "none"
    #: Every sample looks up positions of its own (RoBERTa counts from its padding).
    positions_per_sample: bool = False
    #: A learned token for masked patches, not used in fine-tuning (DINOv2).
    mask_token: bool = False
    #: Adapters on gate, up and down are of the experts' fused weights (PEFT on transformers 5).
    adapts_experts: bool = False
    #: Scores of experts are corrected by a parameter that does not train (ERNIE).
    score_correction: bool = False
    #: Images: a learned token before the patches.
    class_token: bool = False
    #: Every sublayer's result is scaled by a learned vector (DINOv2).
    layer_scale: bool = False
    #: Positions are sines, a table that is not trained (Pegasus, Marian).
    fixed_positions: bool = False
    #: Dropout after the final norm (T5).
    final_dropout: bool = False
    #: Positions are sines, a buffer of each stack, from which every sample takes rows of its own
    #: (M2M100).
    buffered_positions: bool = False
    #: Attends over an encoder's states.
    cross_attention: bool = False
    #: "t5": a bias by relative position, made by a stack's first block and added in every one.
    #: "mpnet": the encoder makes it once for every sample.
    position_bias: Literal["none", "t5", "mpnet"] = "none"
    #: Its place in a stack, where first or last blocks differ from the others.
    first: bool = False
    last: bool = False
    #: Blocks that lack a half lack its norm too (Nemotron-NAS).
    attends: bool = True
    feeds_forward: bool = True
    #: The first block has no norm before attention (ModernBERT).
    first_norm: bool = True
    #: The block is run again with the same parameters (ALBERT); the last owns them.
    borrowed: bool = False
    #: The frame keeps what every block gave (DeBERTa).
    keeps_states: bool = False
    #: Disentangled attention over positions (DeBERTa V2), their keys and queries projected with the
    #: content's weights or with others; "joint" is V1's.
    disentangled: Literal["none", "shared", "own", "joint"] = "none"
    #: Tokens under a convolution beside the first block (DeBERTa V2); 0 is none.
    convolution: int = 0
    #: What mixes tokens in the place of attention: Mamba's selective scan over every channel, or
    #: over heads (Mamba-2); a gated delta net, with a projection for each of what it reads, or one
    #: for queries, keys, values and output gate and one for the gates of every head (Qwen3-Next).
    mixer: Literal["attention", "mamba", "mamba2", "delta-net", "delta-net-joint"] = "attention"
    #: Recurrent layers and the convolutions before them run in kernels of their own.
    fused_recurrence: bool = True
    #: Biases of a recurrent layer's projections, and of its convolution.
    mixer_bias: bool = False
    convolution_bias: bool = True
    #: Mamba's time step and the weights of its states are normed, with weights (Jamba) or without
    #: (Falcon-Mamba).
    mixer_norms: Literal["none", "plain", "rms"] = "none"
    #: The residual stream is in fp32 from the first block's sum on, whatever the weights are.
    residual_fp32: bool = False
    #: Some layer has attention, for which the model makes masks.
    causal_masks: bool = True
    #: Weights of the checkpoint that do not run: how many of which rows and columns.
    unread_weights: tuple[tuple[int, int, int], ...] = ()
