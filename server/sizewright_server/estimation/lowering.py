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

from sizewright_server.estimation import (
    megatron_block,
    megatron_further,
    megatron_heads,
    megatron_stacks,
)
from sizewright_server.estimation.adapters import has_prompt
from sizewright_server.estimation.architecture import (
    Architecture,
    HeadStyle,
    Role,
    Run,
    Sizes,
    Style,
)
from sizewright_server.estimation.gated_prompts import BLOCKS_WITHOUT, has_gated_prompt
from sizewright_server.estimation.heads import (
    lower_embedding,
    lower_head,
    lower_mel_embedding,
    lower_patch_embedding,
)
from sizewright_server.estimation.megatron_further import with_further
from sizewright_server.estimation.profile import Column, Program, compile_program, elements
from sizewright_server.estimation.stacks import (
    lower_decoder_embedding,
    lower_decoder_head,
    lower_encoder_embedding,
    lower_encoder_end,
)
from sizewright_server.estimation.tape import Tape
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
    "megatron-head": megatron_further.lower_head,
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
    #: It has attention, whose work grows with the square of the tokens.
    attends: bool = True

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
    if architecture.sizes.pads_chunks(tokens):
        mode = replace(mode, ragged_chunks=True)
    return _lowered(architecture, mode, min(tokens, longest))


@lru_cache(maxsize=512)
def _lowered(architecture: Architecture, mode: Mode, tokens: int) -> tuple[Segment, ...]:
    head = architecture.head
    segments: list[Segment] = []
    learns = mode.types.trains("embeddings") or has_prompt(mode.types) or mode.learns_inputs
    gated = has_gated_prompt(mode.types)
    # The second version trains something of every block.
    without = BLOCKS_WITHOUT if gated and not mode.types.trains("norms") else 1
    for run in _joined(with_further(architecture.runs, mode), tokens):
        own = replace(_complete(mode, run.sizes, tokens), learns_inputs=True)
        count = run.count
        name = run.lowering if mode.library == "model" else f"{mode.library}-{run.lowering}"
        if run.role == "block" and not learns:
            # Nothing trains before the first block that trains, whose input takes no gradient.
            first = replace(own, learns_inputs=False, prompted=not gated)
            program = _compile(name, run.style, head, first)
            learns = gated or bool(program.output_grads)
            ahead = min(without, count) if learns else count
            segments.append(_segment(run, program, ahead, "first-"))
            count -= ahead
        if not count:
            continue
        program = _compile(name, run.style, head, own)
        whole = count - -(-count // mode.every_layers) if run.role == "block" else 0
        if whole:
            segments.append(replace(_segment(run, program, whole, "whole-"), recomputed=False))
        segments.append(_segment(run, program, count - whole))
    return tuple(segments)


def _segment(run: Run, program: Program, count: int, prefix: str = "") -> Segment:
    attends = run.style.attends and run.style.mixer == "attention"
    return Segment(prefix + run.name, run.role, program, count, run.sizes, attends=attends)


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
        # Flash kernels are told a window, and need no mask of it.
        windowed=0 < sizes.window <= tokens
        and not mode.one_query
        and not mode.attention.startswith("flash"),
    )


@lru_cache(maxsize=2048)
def _compile(lowering: str, style: Style, head: HeadStyle, mode: Mode) -> Program:
    tape = LOWERINGS[lowering](style, head, mode)
    return compile_program(tape, mode.selective, checkpointed=mode.checkpointed)


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
