"""From an architecture and a mode of running to segments: compiled tapes and how often each stands.

Compiled once per structure: two models of one style, or two batch sizes, share their programs and
differ only in the dimensions put in. A new kind of model (convolutions, experts, encoder and
decoder) is another list of segments here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sizewright_server.estimation.architecture import Architecture, HeadStyle, Sizes, Style
from sizewright_server.estimation.heads import lower_embedding, lower_head
from sizewright_server.estimation.profile import Column, Program, compile_program, elements
from sizewright_server.estimation.transformer import Block, Mode


@dataclass(frozen=True, slots=True)
class Segment:
    """A compiled tape; `repeats` is true for the blocks, which stand `layers` times in a row."""

    name: str
    program: Program
    repeats: bool


@lru_cache(maxsize=512)
def lower(style: Style, head: HeadStyle, mode: Mode) -> tuple[Segment, ...]:
    """The segments of a transformer, first to last."""
    return (
        Segment("embedding", compile_program(lower_embedding(style, mode)), repeats=False),
        Segment("block", compile_program(Block(style, mode).lower()), repeats=True),
        Segment("head", compile_program(lower_head(style, head, mode)), repeats=False),
    )


def model_dims(architecture: Architecture, tp: Column) -> dict[str, Column]:
    """The dimensions that do not depend on the batch; one column entry per layout.

    Tensor parallelism splits heads and feed-forward; a rank keeps at least one key/value head.
    """
    sizes: Sizes = architecture.sizes
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
    }
    local = {
        "A": heads * sizes.head_dim,
        "K": kv_heads * sizes.head_dim,
        "NH": heads,
        "NK": kv_heads,
        "F": sizes.ffn // tp,
        "F2": 2 * sizes.ffn // tp,
        "QKV": (heads + 2 * kv_heads) * sizes.head_dim,
        "VL": np.full_like(tp, sizes.vocab),
    }
    return {name: np.full_like(tp, value) for name, value in whole.items()} | local


def parameter_count(segment: Segment, dims: dict[str, Column]) -> Column:
    """Parameters of one instance."""
    total = np.zeros(1, dtype=np.int64)
    for shape, _ in segment.program.parameters:
        total = total + elements(shape, dims)
    return total


def tied_count(architecture: Architecture, dims: dict[str, Column]) -> Column:
    """Parameters counted in the head that are the embedding's own."""
    if architecture.head.tied and architecture.head.kind in ("causal-lm", "masked-lm"):
        return elements(("V", "E"), dims)
    return np.zeros(1, dtype=np.int64)
