"""Training as a schedule: what is resident, and the stages of one optimizer step, per layout.

Layouts that share a sharding library and the use of tensor parallelism are one group with one
schedule; everything in it is a column over the group's layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.lowering import Dims, Segment, lower
from sizewright_server.estimation.model_states import ALWAYS, ModelStates, ParallelColumns
from sizewright_server.estimation.ops import FP32, INT64
from sizewright_server.estimation.optimizers import OptimizerKind, optimizers
from sizewright_server.estimation.profile import Column, Pass, elements, round_up, storage_bytes
from sizewright_server.estimation.states import Widths, state_widths
from sizewright_server.estimation.timeline import Stage
from sizewright_server.estimation.transformer import Mode
from sizewright_server.estimation.workload import Layout, Sharding, Training


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes per GPU that are there for the whole step, by name."""

    weights: Column
    optimizer: Column
    gradients_kept: Column
    buckets: Column
    inputs: Column

    @property
    def total(self) -> Column:
        """Their sum."""
        return self.weights + self.optimizer + self.gradients_kept + self.buckets + self.inputs


@dataclass(frozen=True, slots=True)
class Schedule:
    """A group's resident bytes, its stages, and what the optimizer step adds to its states."""

    resident: Resident
    stages: tuple[Stage, ...]
    step_bytes: Column
    step_temporary: Column


class TrainingGroup:
    """Layouts of one sharding library, all with or all without tensor parallelism."""

    def __init__(
        self, architecture: Architecture, training: Training, layouts: Sequence[Layout]
    ) -> None:
        self.architecture = architecture
        self.training = training
        self._given = tuple(layouts)
        self.sharding: Sharding = layouts[0].sharding
        self.widths: Widths = state_widths(training, self.sharding)
        self.dp = np.array([layout.dp for layout in layouts], dtype=np.int64)
        self.tp = np.array([layout.tp for layout in layouts], dtype=np.int64)
        self.zero = np.array([layout.zero for layout in layouts], dtype=np.int64)
        self.keep = np.array([layout.keep_gathered for layout in layouts], dtype=np.int64)
        self.segments = lower(architecture, self._mode(bool((self.tp > 1).any())))
        self.dims_of = self._dims()
        self.dims = self.dims_of.of(architecture.sizes)
        self.states = ModelStates(
            architecture,
            self.segments,
            self.dims_of,
            ParallelColumns(self.dp, self.tp, self.zero, self.keep),
            self.widths,
            self.sharding,
        )
        self.counts = [segment.count for segment in self.segments]
        self._sizes_of: dict[str, Column] = {}

    def _mode(self, tensor_parallel: bool) -> Mode:
        training = self.training
        return Mode(
            types=self.widths.types,
            training=True,
            attention=training.attention,
            padded=training.padded_batches,
            tensor_parallel=tensor_parallel,
        )

    def _dims(self) -> Dims:
        tokens = self.training.seq_len
        batch = {"B": self.training.micro_batch, "S": tokens, "C": tokens, "KEPT": tokens}
        return Dims(self.tp, batch)

    @cached_property
    def resident(self) -> Resident:
        """What each ZeRO stage leaves on a rank for the whole step."""
        states = self.states
        kept = np.zeros_like(self.dp)
        if self.adding:
            kept = states.total(self.widths.gradient, 2)
        return Resident(
            weights=states.weights(3),
            optimizer=states.optimizer(self.training.optimizer),
            gradients_kept=kept,
            buckets=states.buckets(),
            inputs=2 * round_up(elements(("B", "S"), self.dims) * INT64),
        )

    # -- the step -------------------------------------------------------------------------------

    @cached_property
    def schedule(self) -> Schedule:
        """One optimizer step: forward, loss, backward, and the step itself."""
        whole = self.states.total(self.widths.gradient, 2)
        if self.training.optimizer.in_backward:
            whole = np.zeros_like(whole)
        gradients = np.where(self.resident.gradients_kept > 0, 0, whole)
        return Schedule(
            resident=self.resident,
            stages=self.all_stages,
            step_bytes=gradients + self._held_outputs(),
            step_temporary=self._step_temporary(),
        )

    @cached_property
    def all_stages(self) -> tuple[Stage, ...]:
        """The stages of forward, loss and backward."""
        return (*self._forward(), *self._backward())

    def resident_numbers(self, parameters: int) -> list[tuple[str, int, str]]:
        """Name, bytes and numbers of what is there throughout, for the first layout."""
        widths, zero = self.widths, int(self.zero[0])
        dp, tp = int(self.dp[0]), int(self.tp[0])
        ways = [f"over {(dp if zero >= stage else 1) * tp}" for stage in (1, 2, 3)]
        kind = optimizers()[self.training.optimizer.name]
        per_parameter = (kind.whole_states or 0) * widths.state + widths.master
        resident = self.resident
        batch = f"2 x {self.training.micro_batch} x {self.training.seq_len} x {INT64} B"
        return [
            ("weights", int(resident.weights[0]), f"{parameters:,} x {widths.stored} B {ways[2]}"),
            (
                "optimizer-state",
                int(resident.optimizer[0]),
                f"{parameters:,} x {per_parameter} B {ways[0]}",
            ),
            (
                "gradients-kept",
                int(resident.gradients_kept[0]),
                f"{parameters:,} x {widths.gradient} B {ways[1]}",
            ),
            ("reduction-buckets", int(resident.buckets[0]), f"{int(resident.buckets[0]):,} B"),
            ("inputs", int(resident.inputs[0]), batch),
        ]

    def step_parts(self) -> dict[str, int]:
        """Bytes by part that the optimizer step adds to the resident ones."""
        schedule = self.schedule
        held = int(self._held_outputs()[0])
        return {
            "gradients": int(schedule.step_bytes[0]) - held,
            "logits-held": held,
            "step-temporaries": int(schedule.step_temporary[0]),
        }

    def _sizes(self, segment: Segment) -> Column:
        if segment.name not in self._sizes_of:
            dims = self.dims_of.of(segment.sizes)
            made = storage_bytes(segment.program, dims, len(self.dp))
            self._sizes_of[segment.name] = made
        return self._sizes_of[segment.name]

    def _forward(self) -> list[Stage]:
        """Blocks are gathered one at a time; the last all-gather's buffer lives until the next."""
        root, units = self.states.root(), self.states.units()
        stages = []
        for index, segment in enumerate(self.segments):
            # A unit and the one fetched ahead; after the blocks, the last one's buffer.
            fetched = 2 * units[index] if segment.repeats else units[index - 1]
            during = root + (fetched if index else root)
            checkpointed = segment.repeats and self.training.checkpointing == "full"
            events = segment.program.checkpointed if checkpointed else segment.program.forward
            phase = "loss" if segment.role == "head" else "forward"
            stages.append(
                Stage(
                    phase,
                    segment.name,
                    events,
                    self._sizes(segment),
                    segment.count,
                    during,
                    self.keep * units[index],
                )
            )
        return stages

    def _backward(self) -> list[Stage]:
        """Head first; a unit's gradients are reduced to shards when its backward is done."""
        root, units = self.states.root(), self.states.units()
        reduced = self.states.reduced_units()
        not_kept = 1 - self.keep
        stages = []
        for index, segment in reversed(list(enumerate(self.segments))):
            after = min(index + 1, len(self.segments) - 1)
            # The unit itself, the next one fetched ahead, and the last one's gradients on their
            # way to their shards.
            ahead = units[index - 1] if index else np.zeros_like(root)
            own = units[index] + not_kept * units[index] if segment.repeats else not_kept * ahead
            in_flight = reduced[index] if segment.repeats else reduced[after]
            during = root + own + in_flight
            stages.append(
                Stage(
                    "loss" if segment.role == "head" else "backward",
                    segment.name,
                    self._backward_pass(segment),
                    self._sizes(segment),
                    segment.count,
                    during,
                    self._after_backward(index),
                )
            )
        return stages

    @property
    def adding(self) -> bool:
        """Gradients accumulate over micro-batches."""
        return self.training.gradient_accumulation_steps > 1

    def first_of_several(self) -> TrainingGroup:
        """The group as its first micro-batch runs, when no gradient is there yet."""
        alone = replace(self.training, gradient_accumulation_steps=1)
        return TrainingGroup(self.architecture, alone, self._given)

    def _backward_pass(self, segment: Segment) -> Pass:
        program = segment.program
        if segment.repeats and self.training.checkpointing == "full":
            return program.recompute_accumulating if self.adding else program.recompute
        return program.backward_accumulating if self.adding else program.backward

    def _after_backward(self, index: int) -> Column:
        """Correction from whole gradients in the computing type to what the stage keeps of them.

        The root's gradients stay whole until the embedding's backward has run; the tied table's
        two gradients are added up and kept once.
        """
        root = not self.segments[index].repeats
        if self.adding or (root and index):
            return np.zeros_like(self.dp)
        if self.training.optimizer.in_backward:
            return -self._whole_gradients(index)
        states, width = self.states, self.widths.types.trained or self.widths.types.weight
        shards = states.per_segment(self.widths.gradient, ALWAYS)
        sharded = (self.zero >= 2) & (self.dp > 1)
        if root:
            of_root = [i for i, segment in enumerate(self.segments) if not segment.repeats]
            shrunk = sum(shards[i] - states.whole(i, width) for i in of_root)
            return np.where(sharded, shrunk, -states.tied(width))
        return np.where(sharded, shards[index] - states.whole(index, width), 0)

    def _whole_gradients(self, index: int) -> Column:
        """The gradients of a segment as the tape makes them; of the whole root at its last."""
        types = self.widths.types
        width = types.trained or types.weight
        if self.segments[index].repeats:
            return self.states.whole(index, width)
        of_root = [i for i, segment in enumerate(self.segments) if not segment.repeats]
        total: Column = np.sum([self.states.whole(i, width) for i in of_root], axis=0)
        return total

    def _held_outputs(self) -> Column:
        """The model's output object keeps the logits until the step is over."""
        head = self.segments[-1]
        outputs = head.program.output_storages[1:]
        held: Column = np.zeros_like(self.dp)
        for storage in outputs:
            held = held + self._sizes(head)[storage]
        return held

    def _step_temporary(self) -> Column:
        """Lists the foreach step makes, or one tensor's worth for the plain loop.

        A master copy is stepped with an fp32 copy of its gradients.
        """
        kind, widths = optimizers()[self.training.optimizer.name], self.widths
        if widths.master and widths.gradient != FP32:
            return self.states.total(FP32, 1) * (1 + self._foreach(kind))
        if self.training.optimizer.step == "foreach":
            return self._foreach(kind) * self.states.total(widths.state, 1)
        if self.training.optimizer.step == "for-loop":
            return kind.loop * self.states.largest_tensor(widths.state, 1)
        return np.zeros_like(self.dp)

    def _foreach(self, kind: OptimizerKind) -> int:
        return (kind.foreach or 0) if self.training.optimizer.step == "foreach" else 0

    # -- doubt ----------------------------------------------------------------------------------

    def doubt(self, phase: str) -> tuple[Column, Column]:
        """Bytes a phase may hold less, and more, than the schedule says.

        Less: a training loop that keeps only the loss frees the logits at once. More: activation
        and attention kernels that are not fused hold intermediate tensors in the backward pass
        (silu's unfused backward makes four more; flash attention adds up dQ in fp32), and
        DeepSpeed's buffers depend on its configuration.
        """
        zero = np.zeros_like(self.dp)
        less, more = zero, zero
        if phase in ("loss", "backward", "optimizer-step"):
            less = self._held_outputs()
        if phase == "backward":
            width = self.widths.types.compute
            unfused = 4 * elements(("B", "S", "F"), self.dims) * width
            accumulated = elements(("B", "S", "A"), self.dims) * FP32
            more = unfused + np.where(self.training.attention == "eager", 0, accumulated)
        if self.sharding == "deepspeed":
            bucket = [self.states.buckets(bound) for bound in ("low", "value", "high")]
            less, more = less + bucket[1] - bucket[0], more + bucket[2] - bucket[1]
        return less, more
