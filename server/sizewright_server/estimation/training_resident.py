"""What is on a rank for the whole step: states, buffers, micro-batches that wait."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from sizewright_server.estimation.exchanges import expert_bytes, imbalance
from sizewright_server.estimation.inputs import input_bytes
from sizewright_server.estimation.ops import BYTE, INT64
from sizewright_server.estimation.optimizers import OptimizerKind, optimizers
from sizewright_server.estimation.pipeline import chunks_in_flight
from sizewright_server.estimation.profile import Column, elements, round_up, walk
from sizewright_server.estimation.states import ITEMSIZES, buffer_elements
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
    inputs: Column
    waiting: Column
    workspaces: Column
    imbalance: Column
    moving_average: Column
    reference: Column

    @cached_property
    def total(self) -> Column:
        """Their sum."""
        total: Column = sum(getattr(self, field.name) for field in fields(self))
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
            inputs=input_bytes(
                self.architecture,
                self.dims,
                width=self.widths.types.weight,
                labels=True,
                padded=self.training.padded_batches,
            ),
            waiting=self._waiting(),
            workspaces=np.full_like(self.dp, self._workspaces("value")),
            imbalance=self._imbalanced(imbalance(self.layout).best),
            moving_average=self._moving_average(),
            reference=self._reference(),
        )

    def _narrow_weights(self) -> Column:
        """Transformer Engine's fp8 copies of the weights, as they are and turned, kept over a
        step's micro-batches; weights that are gathered in fp8 are those two copies themselves."""
        narrow = self.sharding == "megatron" and bool(self.widths.types.product)
        if not narrow or self.layout.megatron.fp8_param_gather:
            return np.zeros_like(self.dp)
        return self.states.matrices(2 * BYTE)

    def _reference(self) -> Column:
        """The reference model of preference tuning: weights that are never trained."""
        preference = self.training.preference
        if preference is None or preference.reference != "model":
            return np.zeros_like(self.dp)
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
            return np.zeros_like(self.dp)
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
        total = np.zeros_like(self.dp)
        if factor == 1:
            return total
        for stage, segment in zip(self.forward_stages, self.segments, strict=True):
            rows = expert_bytes(segment, stage.events, stage.sizes)
            total = total + stage.count * rows
        beyond: Column = (total * (factor - 1)).astype(np.int64)
        return beyond

    def moved_bytes(self) -> int:
        """Bytes that the first layout's blocks leave in host memory for their backward passes."""
        total: Column = np.zeros_like(self.dp)
        for stage, segment in zip(self.forward_stages, self.segments, strict=True):
            total = total + stage.count * stage.sizes[list(segment.program.moved)].sum(axis=0)
        flights = np.maximum(self._chunks() // self.parallel.virtual, 1)
        return int((total * flights)[0])

    def _workspaces(self, bound: str) -> int:
        """Transformer Engine's own cuBLAS workspaces, tensors of the caching allocator."""
        megatron = self.sharding == "megatron"
        if not megatron or self.layout.megatron.transformer_impl == "local":
            return 0
        return buffer_elements("transformer_engine_workspaces", bound)

    def _waiting(self) -> Column:
        """Saved activations of the other micro-batches in flight, and what travels between stages.

        A stage without the embedding holds the hidden states it was sent.
        """
        if self.position == "only":
            return np.zeros_like(self.dp)
        virtual = self.parallel.virtual
        chunks = self._chunks()
        batches = -(-chunks // virtual)
        hidden = round_up(elements(("B", "S", "H"), self.dims) * self.widths.types.compute)
        total = hidden * (2 + np.where(self.states.here(0) > 0, 0, chunks))
        for stage, segment in zip(self.forward_stages, self.segments, strict=True):
            saved = stage.count * walk(stage.events, stage.sizes).delta_bytes
            if segment.repeats:
                total = total + saved * np.maximum(chunks - virtual, 0) // virtual
            elif segment.role == "embedding" or self.layout.pipeline_schedule == "gpipe":
                total = total + saved * (batches - 1)
        waiting: Column = np.where(self.parallel.pp > 1, total, 0)
        return waiting

    def resident_numbers(self, parameters: int, trained: int) -> list[tuple[str, int, str]]:
        """Name, bytes and numbers of what is there throughout, for the first layout."""
        widths, parallel = self.widths, self.parallel
        whole = int(self.tp[0])
        if int(parallel.pp[0]) > 1:
            # What the stage holds, each tensor-parallel rank a part of it.
            parameters = int(self.states.total(1)[0]) * whole
        ways = [f"over {int(parallel.ways(stage)[0]) * whole}" for stage in (1, 2, 3)]
        kind = optimizers()[self.training.optimizer.name]
        resident = self.resident
        batch = f"2 x {self.training.rows} x {self.training.seq_len} x {INT64} B"
        return [
            ("weights", int(resident.weights[0]), self._weight_numbers(parameters, trained, ways)),
            (
                "optimizer-state",
                int(resident.optimizer[0]),
                self._state_numbers(kind, trained, ways),
            ),
            (
                "gradients-kept",
                int(resident.gradients_kept[0]),
                f"{trained:,} x {widths.gradient} B {ways[1]}",
            ),
            ("reduction-buckets", int(resident.buckets[0]), f"{int(resident.buckets[0]):,} B"),
            ("persisted-parameters", int(resident.persisted[0]), "small tensors, whole"),
            (
                "fp8-weight-copies",
                int(resident.narrow_weights[0]),
                "2 x 1 B for every element of a block's matrices",
            ),
            ("inputs", int(resident.inputs[0]), batch),
            ("reference-model", int(resident.reference[0]), f"{parameters:,} parameters"),
            ("moving-average", int(resident.moving_average[0]), "one copy of what trains"),
            ("waiting-micro-batches", int(resident.waiting[0]), self._flight_numbers()),
            (
                "expert-imbalance",
                int(resident.imbalance[0]),
                f"busiest rank {imbalance(self.layout).best:g} x the mean",
            ),
            (
                "engine-workspaces",
                int(resident.workspaces[0]),
                f"{int(resident.workspaces[0]):,} B",
            ),
        ]

    def _weight_numbers(self, parameters: int, trained: int, ways: list[str]) -> str:
        """Frozen weights in their format, and what trains beside them."""
        widths, base = self.widths, self.training.base_weights
        if self.training.adapter is None:
            return f"{parameters:,} x {widths.stored} B {ways[2]}"
        frozen = f"{parameters - trained:,} frozen"
        if widths.types.quantized is not None and base is not None:
            frozen += f", linear layers in {base.format}, the rest"
        return f"{frozen} x {widths.stored} B, {trained:,} trained x {widths.trained} B {ways[2]}"

    def _state_numbers(self, kind: OptimizerKind, trained: int, ways: list[str]) -> str:
        """States of whole tensors by their bytes; others by what is kept of a tensor."""
        name, widths = self.training.optimizer.name, self.widths
        if kind.paged:
            return f"{name}: in unified memory, not counted on the GPU"
        if kind.whole_states is None:
            kinds = ", ".join(f"{rule.count} x {rule.of}" for rule in kind.states)
            return f"{trained:,} trained, {name} keeps {kinds} {ways[0]}"
        item = kind.states[0].bytes or widths.state if kind.states else widths.state
        return f"{trained:,} x {kind.whole_states * item + widths.master} B {ways[0]}"

    def _chunks(self) -> Column:
        """Chunks of which the stage holds saved activations, the running one counted."""
        return chunks_in_flight(
            self.layout.pipeline_schedule,
            self.parallel.pp,
            self.parallel.virtual,
            self.training.gradient_accumulation_steps,
            self.position,
        )

    def _flight_numbers(self) -> str:
        chunks, own = int(self._chunks()[0]), int(self.parallel.virtual[0])
        return f"chunks in flight: {chunks}; chunks of the model on a rank: {own}"
