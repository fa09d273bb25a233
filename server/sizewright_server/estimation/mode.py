"""The structural settings of a run: with a `Style` they decide the tape, numbers do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sizewright_server.estimation.ops import Types
from sizewright_server.estimation.tape import Shape
from sizewright_server.estimation.techniques import LossKernel, TrainingLoop

#: Hidden states of all tokens, and of those that a sequence-parallel rank has in its norms and
#: residuals.
WHOLE: Shape = ("B", "S", "H")
SHARDED: Shape = ("B", "SR", "H")


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
    #: One key/value head serves every query head: repeated, it is a view.
    one_key_head: bool = False
    attention_dropout: bool = False
    hidden_dropout: bool = False
    embedding_dropout: bool = False
    #: The first block's input takes a gradient, although no embedding may train.
    learns_inputs: bool = False
    #: The block attends a prompt, where the adapter gives blocks one.
    prompted: bool = True
    checkpointed: bool = False
    #: What selective checkpointing keeps; empty where a block keeps its inputs alone.
    selective: str = ""
    #: One block in this many is checkpointed.
    every_layers: int = 1
    loss: LossKernel = "full"
    loop: TrainingLoop = "plain"
    #: The pass runs one query per sequence, as a decode step does.
    one_query: bool = False
    #: Norms and residuals are split over the tensor-parallel ranks along the sequence.
    sequence_parallel: bool = False
    #: Whose layers run: the model's own code, or Megatron Core's.
    library: Literal["model", "megatron"] = "model"
    #: Megatron's selective recomputation: modules of a layer that run again in the backward pass.
    recompute_modules: frozenset[str] = frozenset()
    #: Megatron's fine-grained offloading: inputs of a layer's modules wait in host memory.
    moves_inputs: bool = False
    #: Megatron's weight gradients are added to its buffers by the products that make them.
    fuses_gradients: bool = False
    #: Layers beyond the last that predict further tokens, on the stage of the head.
    further_layers: int = 0
    #: Megatron's norms are modules of their own, not part of the linear layer that follows.
    separate_norms: bool = False
    #: The batch is one sample: some tensors of recurrent layers are views then, not copies.
    one_sample: bool = False
    #: The last chunk of a recurrent layer is padded: its length does not divide the tokens.
    ragged_chunks: bool = False
    #: A key head of a gated delta net serves several value heads.
    grouped_deltas: bool = False
    #: More tokens are seen than a sliding window holds, so that its layers need a mask.
    windowed: bool = False

    @property
    def stream(self) -> Shape:
        """Shape of the residual stream."""
        return SHARDED if self.sequence_parallel else WHOLE
