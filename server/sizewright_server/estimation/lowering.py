"""From an architecture and a mode of running to segments: compiled tapes and how often each stands.

Compiled once per structure: two models of one style, or two batch sizes, share their programs and
differ only in the dimensions put in. A new kind of model (convolutions, experts, encoder and
decoder) is another list of runs in its `Architecture`, and another entry of `LOWERINGS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from sizewright_server.estimation import megatron_block, megatron_heads, megatron_stacks
from sizewright_server.estimation.adapter_sizes import adapter_columns
from sizewright_server.estimation.adapters import has_prompt
from sizewright_server.estimation.architecture import (
    Architecture,
    HeadStyle,
    Role,
    Run,
    Sizes,
    Style,
)
from sizewright_server.estimation.delta_dims import chunk_dims, delta_dims
from sizewright_server.estimation.gated_prompts import BLOCKS_WITHOUT, has_gated_prompt
from sizewright_server.estimation.heads import (
    lower_embedding,
    lower_head,
    lower_mel_embedding,
    lower_patch_embedding,
)
from sizewright_server.estimation.indexer import chosen_dims
from sizewright_server.estimation.profile import Column, Program, compile_program, elements
from sizewright_server.estimation.recurrent import recurrent_dims
from sizewright_server.estimation.stacks import (
    lower_decoder_embedding,
    lower_decoder_head,
    lower_encoder_embedding,
    lower_encoder_end,
)
from sizewright_server.estimation.tape import Tape
from sizewright_server.estimation.techniques import Adapter
from sizewright_server.estimation.transformer import Block, Mode

#: How each kind of segment is written as a tape.
LOWERINGS: Mapping[str, Callable[[Style, HeadStyle, Mode], Tape]] = {
    "embedding": lower_embedding,
    "mel": lambda style, _head, mode: lower_mel_embedding(style, mode),
    "patches": lambda style, _head, mode: lower_patch_embedding(style, mode),
    "block": lambda style, _head, mode: Block(style, mode).lower(),
    "head": lower_head,
    "megatron-embedding": lambda style, _head, mode: megatron_heads.lower_embedding(style, mode),
    "megatron-block": lambda style, _head, mode: megatron_block.lower_block(style, mode),
    "megatron-head": megatron_heads.lower_head,
    "megatron-encoder-embedding": lambda style, _head, mode: (
        megatron_stacks.lower_encoder_embedding(style, mode)
    ),
    "megatron-encoder-end": lambda style, _head, mode: megatron_stacks.lower_encoder_end(
        style, mode
    ),
    "megatron-decoder-embedding": lambda style, _head, mode: (
        megatron_stacks.lower_decoder_embedding(style, mode)
    ),
    "megatron-decoder-head": megatron_stacks.lower_decoder_head,
    "encoder-embedding": lower_encoder_embedding,
    "encoder-end": lower_encoder_end,
    "decoder-embedding": lower_decoder_embedding,
    "decoder-head": lower_decoder_head,
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A compiled tape that stands `count` times in a row; all its instances have these sizes."""

    name: str
    role: Role
    program: Program
    count: int
    sizes: Sizes
    #: Where blocks are checkpointed, this one is.
    recomputed: bool = True

    @property
    def repeats(self) -> bool:
        """It is a block: a unit of checkpointing and of sharding."""
        return self.role == "block"


def lower(architecture: Architecture, mode: Mode, tokens: int) -> tuple[Segment, ...]:
    """The segments of a model, first to last.

    `mode` is completed from each run's own sizes and from `tokens`, the most that attention sees.
    """
    # Beyond the longest window no length changes the structure.
    longest = max(run.sizes.window for run in architecture.runs)
    mode = replace(mode, ragged_chunks=architecture.sizes.pads_chunks(tokens))
    return _lowered(architecture, mode, min(tokens, longest))


@lru_cache(maxsize=512)
def _lowered(architecture: Architecture, mode: Mode, tokens: int) -> tuple[Segment, ...]:
    head = architecture.head
    segments: list[Segment] = []
    learns = mode.types.trains("embeddings") or has_prompt(mode.types) or mode.learns_inputs
    gated = has_gated_prompt(mode.types)
    # The second version trains something of every block.
    without = BLOCKS_WITHOUT if gated and not mode.types.trains("norms") else 1
    for run in _joined(architecture.runs, tokens):
        own = replace(_complete(mode, run.sizes, tokens), learns_inputs=True)
        count = run.count
        name = run.lowering if mode.library == "model" else f"{mode.library}-{run.lowering}"
        if run.role == "block" and not learns:
            # Nothing trains before the first block that trains, whose input takes no gradient.
            first = replace(own, learns_inputs=False, prompted=not gated)
            program = _compile(name, run.style, head, first)
            learns = gated or bool(program.output_grads)
            ahead = min(without, count) if learns else count
            segments.append(Segment(f"first-{run.name}", run.role, program, ahead, run.sizes))
            count -= ahead
        if not count:
            continue
        program = _compile(name, run.style, head, own)
        whole = count - -(-count // mode.every_layers) if run.role == "block" else 0
        if whole:
            made = Segment(f"whole-{run.name}", run.role, program, whole, run.sizes, False)
            segments.append(made)
        segments.append(Segment(run.name, run.role, program, count - whole, run.sizes))
    return tuple(segments)


@lru_cache(maxsize=256)
def _joined(runs: tuple[Run, ...], tokens: int) -> tuple[Run, ...]:
    """The runs, where those that differ only in a window longer than the text are one."""
    joined: list[Run] = []
    for run in runs:
        if run.sizes.window > tokens:
            run = replace(run, sizes=replace(run.sizes, window=0))
        last = joined[-1] if joined else run
        if run.role == "block" and joined and _alike(last, run):
            joined[-1] = replace(last, count=last.count + run.count)
        else:
            joined.append(run)
    return tuple(joined)


def _alike(one: Run, other: Run) -> bool:
    return (one.style, one.sizes, one.lowering) == (other.style, other.sizes, other.lowering)


def _complete(mode: Mode, sizes: Sizes, tokens: int) -> Mode:
    """The mode with what of a run's sizes changes its structure."""
    return replace(
        mode,
        grouped_queries=sizes.heads != sizes.kv_heads,
        one_key_head=sizes.kv_heads == 1 < sizes.heads,
        attention_dropout=sizes.attention_dropout > 0,
        hidden_dropout=sizes.hidden_dropout > 0,
        embedding_dropout=sizes.embedding_dropout > 0,
        grouped_deltas=sizes.delta_heads != sizes.delta_key_heads,
        windowed=0 < sizes.window <= tokens and not mode.one_query,
    )


@lru_cache(maxsize=2048)
def _compile(lowering: str, style: Style, head: HeadStyle, mode: Mode) -> Program:
    tape = LOWERINGS[lowering](style, head, mode)
    return compile_program(tape, mode.selective, checkpointed=mode.checkpointed)


def model_dims(sizes: Sizes, tp: Column, ep: Column, expert_tp: Column) -> dict[str, Column]:
    """The dimensions that do not depend on the batch; one column entry per layout.

    Tensor parallelism splits heads and feed-forward; a rank keeps at least one key/value head.
    Expert parallelism splits the experts, `expert_tp` each one of them.
    """
    heads = sizes.heads // tp
    kv_heads = np.maximum(sizes.kv_heads // tp, 1)
    whole = {
        "H": sizes.hidden,
        "D": sizes.head_dim,
        "R": sizes.rotary_dim,
        "RH": sizes.rotary_dim // 2,
        "RP": sizes.head_dim - sizes.rotary_dim,
        "V": sizes.vocab,
        "P": sizes.position_rows,
        "T": sizes.token_types,
        "E": sizes.embedding,
        "L": sizes.label_count,
        "one": 1,
        "N": sizes.experts,
        "XK": sizes.experts_per_token,
        "LAYERS": sizes.layers,
        "BUCKETS": sizes.buckets,
        "QR": sizes.query_rank,
        "LR": sizes.latent_rank,
        "LROT": sizes.latent_rotary,
        "LROT2": sizes.latent_rotary // 2,
        "IH": sizes.index_heads,
        "ID": sizes.index_head_dim,
        "IQ": sizes.index_heads * sizes.index_head_dim,
        "KVA": sizes.latent_rank + sizes.latent_rotary,
        "G": sizes.patches,
        "W": sizes.window,
        "EL": sizes.expert_latent or sizes.hidden,
        "SPECIAL": sizes.special_tokens,
        "PC": sizes.patch_values,
        "PIX": sizes.pixels,
    }
    local = delta_dims(sizes, tp) | {
        "A2": 2 * heads * sizes.head_dim,
        "A": heads * sizes.head_dim,
        "K": kv_heads * sizes.head_dim,
        "NH": heads,
        "NK": kv_heads,
        "F": sizes.ffn // tp,
        "F2": 2 * sizes.ffn // tp,
        "FX": sizes.expert_ffn // expert_tp,
        "FX2": 2 * sizes.expert_ffn // expert_tp,
        "FS": sizes.shared_ffn // tp,
        "FS2": 2 * sizes.shared_ffn // tp,
        "QW": heads * (sizes.latent_plain + sizes.latent_rotary),
        "KP": heads * sizes.latent_plain,
        "VA": heads * sizes.value_dim,
        "KVB": heads * (sizes.latent_plain + sizes.value_dim),
        "QKV": (heads + 2 * kv_heads) * sizes.head_dim,
        "KV2": 2 * kv_heads * sizes.head_dim,
        "VL": np.full_like(tp, sizes.vocab),
        "NL": sizes.experts // ep,
    }
    # One table, whose rows are the columns.
    table = np.repeat(np.array(list(whole.values()), dtype=np.int64)[:, None], len(tp), axis=1)
    return dict(zip(whole, table, strict=True)) | local


#: A decoder's own tokens, and the encoder's, which it attends over.
DECODER_TOKENS = {"S": "TARGET", "C": "TARGET_CACHED", "KEPT": "TARGET", "X": "S"}


class Dims:
    """The dimensions of every segment in one run: the batch's, and its own sizes'."""

    def __init__(
        self,
        tp: Column,
        batch: Mapping[str, int | Column],
        ep: Column | None = None,
        expert_tp: Column | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        self._tp = tp
        self._adapter = adapter
        self._expert_tp = tp if expert_tp is None else expert_tp
        self._ep = np.ones_like(tp) if ep is None else ep
        self._batch = {name: np.full_like(tp, value) for name, value in batch.items()}
        self._made: dict[Sizes, dict[str, Column]] = {}

    def of(self, sizes: Sizes) -> dict[str, Column]:
        """Every dimension by name."""
        if sizes not in self._made:
            made = model_dims(sizes, self._tp, self._ep, self._expert_tp) | self._batch
            if sizes.stack == "decoder":
                made |= {n: made[own] for n, own in DECODER_TOKENS.items() if own in self._batch}
                if sizes.patches:
                    made["X"] = np.full_like(self._tp, sizes.patches)
            elif sizes.patches:
                tokens = np.full_like(self._tp, sizes.patches + sizes.special_tokens)
                made |= dict.fromkeys(("S", "C", "KEPT"), tokens)
            if sizes.buckets and "S" in made:
                made["SPAN"] = np.minimum(2 * made["S"], sizes.buckets)
            if sizes.recurrent.inner and "S" in made:
                made |= recurrent_dims(sizes.recurrent, made["S"], made["B"])
            if "C" in made:
                made |= {"C1": made["C"] + 1, "S1": made["S"] + 1}
            if sizes.index_keys:
                made |= chosen_dims(made, sizes.index_keys)
            if sizes.delta_heads and "S" in made:
                made |= chunk_dims(sizes, made)
            made |= adapter_columns(self._adapter, made)
            self._made[sizes] = made
        return self._made[sizes]


def parameter_count(segment: Segment, dims: dict[str, Column], *, trained: bool = False) -> Column:
    """Parameters of one instance; with `trained` only those that train."""
    total = np.zeros(1, dtype=np.int64)
    for parameter in segment.program.parameters:
        if parameter.trained or not trained:
            total = total + elements(parameter.shape, dims)
    return total


def tied_count(architecture: Architecture, dims: dict[str, Column]) -> Column:
    """Parameters counted in the head that are the embedding's own."""
    if architecture.head.shares_table:
        return elements(("V", "E"), dims)
    return np.zeros(1, dtype=np.int64)
