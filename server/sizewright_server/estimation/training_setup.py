"""What a group of layouts is set up with: types, segments, dimensions, states and a working set."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Self

import numpy as np

from sizewright_server.estimation.adapter_sizes import adapter_dims
from sizewright_server.estimation.adapters import virtual_tokens
from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.checkpoints import COMPILED
from sizewright_server.estimation.deepspeed import DeepSpeedWorkingSet
from sizewright_server.estimation.dims import Dims
from sizewright_server.estimation.fsdp import FlatFsdpWorkingSet, FsdpWorkingSet
from sizewright_server.estimation.layout import Sharding
from sizewright_server.estimation.lowering import Segment, lower
from sizewright_server.estimation.megatron_further import further_dims
from sizewright_server.estimation.model_states import ModelStates
from sizewright_server.estimation.modeling import (
    TILE_WORDS,
    loss_chunk_tokens,
    loss_kernel,
    restyle,
    training_loop,
)
from sizewright_server.estimation.offload import Placement, placement
from sizewright_server.estimation.parallel import ParallelColumns
from sizewright_server.estimation.pipeline import Position, stage_counts, stage_index
from sizewright_server.estimation.profile import Column, storage_bytes
from sizewright_server.estimation.sharding import WorkingSet
from sizewright_server.estimation.states import Widths, megatron_widths, state_widths, types_of_run
from sizewright_server.estimation.techniques import LossKernel
from sizewright_server.estimation.transformer import Mode
from sizewright_server.estimation.workload import Layout, Training

#: What each sharding library holds beside the states.
WORKING_SETS: dict[Sharding, type[WorkingSet]] = {
    "ddp": WorkingSet,
    "megatron": WorkingSet,
    "deepspeed": DeepSpeedWorkingSet,
    "fsdp1": FlatFsdpWorkingSet,
    "fsdp2": FsdpWorkingSet,
}


class TrainingSetup:
    """Layouts of one library and structure, as stages of their pipelines hold them.

    A column is a layout at a position in the pipeline: all layouts at the first of `positions`,
    then all of them at the next.
    """

    def __init__(
        self,
        architecture: Architecture,
        training: Training,
        layouts: Sequence[Layout],
        positions: Sequence[Position] = ("only",),
    ) -> None:
        self.architecture = architecture = restyle(architecture, training)
        self.training = training
        self.layouts = tuple(layouts)
        self.positions = tuple(positions)
        #: The column that is explained: the first layout's, at one of the positions.
        self.shown = 0
        self.layout = layouts[0]
        self.sharding: Sharding = self.layout.sharding
        self.widths: Widths = state_widths(training, self.sharding)
        if self.sharding == "megatron":
            self.widths = megatron_widths(self.widths, self.layout.megatron)
        self.parallel = ParallelColumns.of([*layouts] * len(self.positions))
        #: No bytes, for every layout; made once, since most of what may be held is not.
        self.nothing: Column = np.zeros_like(self.parallel.dp)
        self.nothing.setflags(write=False)
        self.placement: Placement = placement(self.layout)
        self.segments = lower(architecture, self._mode(), training.seq_len)
        self.dims_of = self._dims()
        self.dims = self.dims_of.of(architecture.sizes)
        self._sizes_of: dict[tuple[int, int], Column] = {}

    def showing(self, column: int) -> Self:
        """The same group, of which another column is explained."""
        other = copy(self)
        other.shown = column
        return other

    @property
    def position(self) -> Position:
        """Where in the pipeline the stage is that is explained."""
        return self.positions[self.shown // len(self.layouts)]

    @cached_property
    def stage(self) -> Column:
        """The number of each column's pipeline stage."""
        pp = np.split(self.parallel.pp, len(self.positions))
        return np.concatenate([stage_index(*each) for each in zip(self.positions, pp, strict=True)])

    @cached_property
    def counts(self) -> Column:
        """Instances of each segment on the pipeline stage: a row each."""
        parallel = self.parallel
        if self.positions == ("only",):
            every = np.array([[segment.count] for segment in self.segments])
            return np.repeat(every, len(parallel.pp), axis=1)
        given = self.layout.megatron
        ends = given.first_stage_layers, given.last_stage_layers
        return stage_counts(self.segments, parallel.pp, parallel.virtual, self.stage, ends)

    @cached_property
    def states(self) -> ModelStates:
        """The model states of the stage's ranks."""
        return ModelStates(
            self.architecture,
            self.segments,
            self.counts,
            self.dims_of,
            self.parallel,
            self.widths,
        )

    @cached_property
    def working(self) -> WorkingSet:
        """What the sharding library holds beside them."""
        accumulates = self.training.gradient_accumulation_steps > 1
        return WORKING_SETS[self.sharding](self.states, self.layout, accumulates=accumulates)

    def _mode(self) -> Mode:
        training = self.training
        return Mode(
            types=types_of_run(self.widths.types, training),
            training=True,
            attention=training.attention,
            padded=self._masked,
            sequence_parallel=self.layout.sequence_parallel,
            library="megatron" if self.sharding == "megatron" else "model",
            recompute_modules=self._recompute_modules(),
            moves_inputs=self._moves_inputs,
            fuses_gradients=self.fuses_gradients,
            further_layers=self._further_layers,
            separate_norms=self.layout.megatron.transformer_impl == "local",
            checkpointed=training.checkpointing != "none",
            selective=self._policy,
            every_layers=training.checkpoint_policy.every_layers if self._recomputes else 1,
            loss=self._loss_kernel(),
            loop=training_loop(training),
            # PEFT makes the embedding's output take a gradient when blocks are checkpointed.
            learns_inputs=training.checkpointing != "none",
            one_sample=training.rows == 1 and self.architecture.recurrent,
        )

    @property
    def _further_layers(self) -> int:
        """Megatron-LM's layers that predict further tokens; no other library trains them."""
        return self.training.multi_token_prediction_layers if self.sharding == "megatron" else 0

    def _recompute_modules(self) -> frozenset[str]:
        """Modules of Megatron Core's layers that run again; attention itself unless told."""
        if self.sharding != "megatron" or self.training.checkpointing != "selective":
            return frozenset()
        return frozenset(self.layout.megatron.recompute_modules or ("core_attn",))

    @property
    def fuses_gradients(self) -> bool:
        """Weight gradients go straight to Megatron-LM's fp32 buffers."""
        given = self.layout.megatron
        fused = given.gradient_accumulation_fusion and given.fp32_main_gradients
        return self.sharding == "megatron" and fused

    @property
    def _moves_inputs(self) -> bool:
        """Megatron Core offloads the inputs of a layer's modules where whole blocks are kept."""
        return (
            self.layout.offload_activations and self.sharding == "megatron" and not self._recomputes
        )

    def _loss_kernel(self) -> LossKernel:
        """Megatron-LM's own loss, or Transformer Engine's that works in place."""
        if self.sharding != "megatron":
            return loss_kernel(self.training)
        given = self.layout.megatron
        in_place = given.fused_cross_entropy and given.cross_entropy_impl == "te"
        return "fused" if in_place else "full"

    @property
    def _masked(self) -> bool:
        """A mask of (tokens, tokens) is there; flash kernels are told the lengths instead."""
        training = self.training
        several = training.padded_batches or training.packed
        return several and not training.attention.startswith("flash")

    def _dims(self) -> Dims:
        """Context parallelism splits a sample's tokens."""
        own = self.training.seq_len // self.parallel.cp
        adapter = self.training.adapter
        tokens = own + virtual_tokens(adapter, keys_only=False)
        batch: dict[str, int | Column] = {
            "B": self.training.rows,
            "S": tokens,
            "ST": own,
            "C": tokens + virtual_tokens(adapter, keys_only=True),
            "KEPT": tokens,
            "TARGET": self.training.target_len or self.training.seq_len,
            "TARGET_CACHED": self.training.target_len or self.training.seq_len,
        }
        sizes = self.architecture.sizes
        batch["CT"] = loss_chunk_tokens(self.training, sizes.hidden, sizes.vocab)
        words = min(sizes.vocab, TILE_WORDS)
        batch |= {"VT": words, "VN": min(sizes.vocab - words, TILE_WORDS)}
        batch |= adapter_dims(self.training.adapter, self.architecture.sizes)
        batch |= self._split_dims(tokens)
        return Dims(
            self.parallel.tp,
            batch,
            self.parallel.ep,
            self.parallel.expert_tp,
            self.training.adapter,
        )

    def _split_dims(self, tokens: Column) -> dict[str, int | Column]:
        """Dimensions of sequence parallelism, and of tables split by rows of the vocabulary.

        Megatron-LM pads the vocabulary to a multiple of `vocab_multiple` x tp; PyTorch's plan for
        sequence parallelism splits the table, the head and the loss.
        """
        tp, vocab = self.parallel.tp, self.architecture.sizes.vocab
        if self.sharding == "megatron":
            multiple = self.layout.megatron.vocab_multiple
            padded = -(-vocab // (multiple * tp)) * multiple
            rows = -(-tokens // tp) if self.layout.sequence_parallel else tokens
            routed = -(-tokens * self.parallel.expert_tp // tp)
            made: dict[str, int | Column] = {
                "SR": rows,
                "SX": routed,
                "VP": padded,
                "V": padded,
                "VL": padded,
            }
            if self._further_layers:
                made |= further_dims(padded, self.architecture.sizes.hidden, self.parallel)
            return made
        if not self.layout.sequence_parallel:
            return {}
        return {"SR": -(-tokens // tp), "V": -(-vocab // tp), "VL": -(-vocab // tp)}

    @property
    def dp(self) -> Column:
        """Data-parallel sizes."""
        return self.parallel.dp

    @property
    def tp(self) -> Column:
        """Tensor-parallel sizes."""
        return self.parallel.tp

    @property
    def adding(self) -> bool:
        """Gradients of earlier micro-batches are there when the longest one runs."""
        several = self.training.gradient_accumulation_steps > 1
        return several and not self.training.longest_batch_first

    @property
    def adds_in_place(self) -> bool:
        """New gradients are added to whole ones as they are made; to shards, when reduced."""
        return (self.adding or self._buffered) and not bool((self.parallel.zero >= 2).any())

    @property
    def _buffered(self) -> bool:
        """Gradients live in buffers that are never freed."""
        several = bool((self.parallel.replicas > 1).any())
        return self.sharding == "megatron" or (self.layout.bucket_view and several)

    @property
    def _recomputes(self) -> bool:
        """Blocks are checkpointed; Megatron's own selective kind is a matter of its layers."""
        kind = self.training.checkpointing
        return kind == "full" or (kind == "selective" and self.sharding != "megatron")

    @property
    def _policy(self) -> str:
        if self.training.checkpointing != "selective" or not self._recomputes:
            return ""
        compiled = COMPILED if self.training.kernels.compile != "none" else ""
        return self.training.checkpoint_policy.selective + compiled

    def is_checkpointed(self, segment: Segment) -> bool:
        """Whether a segment's blocks are recomputed in the backward pass."""
        return segment.repeats and segment.recomputed and self._recomputes

    def _sizes(self, segment: Segment) -> Column:
        # Layers of one kind that do not follow one another are segments of their own.
        key = (id(segment.program), id(segment.sizes))
        if key not in self._sizes_of:
            dims = self.dims_of.of(segment.sizes)
            self._sizes_of[key] = storage_bytes(segment.program, dims)
        return self._sizes_of[key]
