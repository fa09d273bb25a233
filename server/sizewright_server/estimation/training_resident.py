"""What is on a rank for the whole step: states, buffers, micro-batches that wait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from sizewright_server.estimation.exchanges import expert_bytes, imbalance
from sizewright_server.estimation.inputs import input_bytes
from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.mode import SHARDED, WHOLE
from sizewright_server.estimation.ops import BYTE
from sizewright_server.estimation.pipeline import chunks_in_flight
from sizewright_server.estimation.profile import Column, elements, round_up
from sizewright_server.estimation.sharding import engine_workspaces
from sizewright_server.estimation.states import HALF, ITEMSIZES
from sizewright_server.estimation.training_passes import TrainingPasses


@dataclass(frozen=True)
class Resident:
    """Bytes per GPU that are there for the whole step, by name."""

    weights: Column
    optimizer: Column
    gradients_kept: Column
    buckets: Column
    persisted: Column
    narrow_weights: Column
    stand_ins: Column
    inputs: Column
    waiting: Column
    workspaces: Column
    imbalance: Column
    moving_average: Column
    reference: Column

    @cached_property
    def total(self) -> Column:
        """Their sum."""
        columns = [getattr(self, field.name) for field in fields(self)]
        total: Column = np.array(columns).sum(axis=0)
        return total


class ResidentGroup(TrainingPasses):
    """A group with what is resident on its ranks."""

    @cached_property
    def resident(self) -> Resident:
        """What is on a rank for the whole step."""
        states, stays = self.states, self.placement
        optimizer = states.optimizer(self.training.optimizer) * stays.optimizer
        weights = states.weights(3) * stays.weights + states.unsharded()
        return Resident(
            weights=weights.astype(np.int64),
            optimizer=optimizer.astype(np.int64),
            gradients_kept=self._gradients_kept(),
            buckets=self.working.buffers.best,
            persisted=self.working.persisted(),
            narrow_weights=self._narrow_weights(),
            stand_ins=self._stand_ins(),
            inputs=input_bytes(
                self.architecture,
                self.dims,
                width=self.widths.types.weight,
                labels=True,
                padded=self.training.padded_batches,
            ),
            waiting=self._waiting(),
            workspaces=np.full_like(
                self.dp, engine_workspaces(self.layout, self.segments, "value")
            ),
            imbalance=self._imbalanced(imbalance(self.layout).best),
            moving_average=self._moving_average(),
            reference=self._reference(),
        )

    def _stand_ins(self) -> Column:
        """What takes the place of weight gradients that are added up inside the product."""
        return self.states.distinct_matrices(HALF) if self.fuses_gradients else self.nothing

    def _narrow_weights(self) -> Column:
        """Transformer Engine's fp8 copies of the weights, as they are and turned, kept over a
        step's micro-batches; weights that are gathered in fp8 are those two copies themselves."""
        narrow = self.sharding == "megatron" and bool(self.widths.types.product)
        if not narrow or self.layout.megatron.fp8_param_gather:
            return self.nothing
        return self.states.matrices(2 * BYTE)

    def _reference(self) -> Column:
        """The reference model of preference tuning: weights that are never trained."""
        preference = self.training.preference
        if preference is None or preference.reference != "model":
            return self.nothing
        return self.states.weights(3) + self.states.unsharded()

    @cached_property
    def load_bytes(self) -> Column:
        """Weights while a sharded model is loaded, where units are whole beside their shards."""
        arriving = self.working.loading()
        return np.where(arriving > 0, self.resident.weights + arriving, 0)

    def _moving_average(self) -> Column:
        """A copy of the trained weights that follows them, sharded as they are."""
        kind = self.training.states.moving_average
        if kind is None:
            return self.nothing
        return self.states.total(ITEMSIZES[kind], 3)

    def _gradients_kept(self) -> Column:
        """Gradients that are there before the backward pass begins.

        They are where micro-batches add up; Megatron's buffers and DDP's buckets as views never
        go away, nor do the gradient shards of DeepSpeed's stage 3.
        """
        zero = self.parallel.zero
        whole = self.working.accumulated()
        if self.sharding == "deepspeed" and not self.adding:
            whole = np.where((zero == 3) & (self.parallel.shard > 1), whole, 0)
        elif not (self.adding or self._buffered):
            whole = np.zeros_like(whole)
        kept: Column = (whole * self.placement.gradients).astype(np.int64)
        return kept

    def _imbalanced(self, factor: float) -> Column:
        """What the busiest expert-parallel rank saves beyond the mean."""
        total = self.nothing
        if factor == 1:
            return total
        for stage, segment in zip(self.forward_stages, self.segments, strict=True):
            rows = expert_bytes(segment, stage.events, stage.sizes)
            total = total + stage.count * rows
        beyond: Column = (total * (factor - 1)).astype(np.int64)
        return beyond

    def moved_bytes(self) -> int:
        """Bytes that the shown column's blocks leave in host memory for their backward passes."""
        total: Column = self.nothing
        for stage, segment in zip(self.forward_stages, self.segments, strict=True):
            total = total + stage.count * stage.sizes[list(segment.program.moved)].sum(axis=0)
        flights = np.maximum(self._chunks // self.parallel.virtual, 1)
        return int((total * flights)[self.shown])

    def _waiting(self) -> Column:
        """Saved activations of the other micro-batches in flight, and what travels between stages.

        A chunk holds the hidden states it was sent, of its own tokens under sequence parallelism.
        """
        if self.positions == ("only",):
            return self.nothing
        virtual = self.parallel.virtual
        chunks = self._chunks
        batches = -(-chunks // virtual)
        shape = SHARDED if self.layout.sequence_parallel else WHOLE
        hidden = round_up(elements(shape, self.dims) * self.widths.types.compute)
        # The embedding makes the input of the first stage's first chunk; others are sent.
        sent = np.where(self.states.here[0] > 0, chunks - batches, chunks)
        total = hidden * (2 + sent)
        for count, segment, left in self._saved_forward():
            saved = count * left
            if segment.repeats:
                total = total + saved * np.maximum(chunks - virtual, 0) // virtual
            elif segment.role == "embedding" or self.layout.pipeline_schedule == "gpipe":
                total = total + saved * (batches - 1)
        waiting: Column = np.where(self.parallel.pp > 1, total, 0)
        return waiting

    @cached_property
    def _chunks(self) -> Column:
        """Chunks of which the stage holds saved activations, the running one counted."""
        return chunks_in_flight(
            self.layout.pipeline_schedule,
            self.parallel.pp,
            self.parallel.virtual,
            self.training.gradient_accumulation_steps,
            self.stage,
        )

    def _saved_forward(self) -> Iterator[tuple[Column, Segment, Column]]:
        """Of each segment its instances on the stage, and what one leaves for its backward pass."""
        # The first walks are those of the forward passes.
        return zip(self.counts, self.segments, self.walks.delta_bytes, strict=False)
