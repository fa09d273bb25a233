"""The structural settings of a run: with a `Style` they decide the tape, numbers do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sizewright_server.estimation.ops import Types


@dataclass(frozen=True, slots=True)
class Mode:
    """How a model runs, as far as it changes which tensors are made."""

    types: Types
    training: bool
    attention: str
    padded: bool = False
    #: "dynamic" copies keys and values in every call; "new" makes a static cache, "static" has one.
    cache: Literal["none", "dynamic", "new", "static"] = "none"
    grouped_queries: bool = False
    attention_dropout: bool = False
    hidden_dropout: bool = False
    embedding_dropout: bool = False
    tensor_parallel: bool = False
    #: The first block's input takes a gradient, although no embedding may train.
    learns_inputs: bool = False
    checkpointed: bool = False
    #: The pass runs one query per sequence, as a decode step does.
    one_query: bool = False
    #: More tokens are seen than a sliding window holds, so that its layers need a mask.
    windowed: bool = False
