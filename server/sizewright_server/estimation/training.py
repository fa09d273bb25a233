"""Training as a schedule: what is resident, and the stages of one optimizer step, per layout.

Layouts that share a sharding library and the use of tensor parallelism are one group with one
schedule; everything in it is a column over the group's layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.lowering import Segment, lower, model_dims
from sizewright_server.estimation.ops import FP32, INT64
from sizewright_server.estimation.profile import Column, Pass, elements, round_up, storage_bytes
from sizewright_server.estimation.states import (
    HALF,
    OptimizerKind,
    Widths,
    buffer_elements,
    optimizers,
    state_widths,
    tensor_bytes,
)
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
    gathered_root: Column


class TrainingGroup:
    """Layouts of one sharding library, all with or all without tensor parallelism."""

    def __init__(
        self, architecture: Architecture, training: Training, layouts: Sequence[Layout]
    ) -> None:
        self.architecture = architecture
        self.training = training
        self.sharding: Sharding = layouts[0].sharding
        self.widths: Widths = state_widths(
            training.precision, self.sharding, training.gradient_reduce_dtype
        )
        self.dp = np.array([layout.dp for layout in layouts], dtype=np.int64)
        self.tp = np.array([layout.tp for layout in layouts], dtype=np.int64)
        self.zero = np.array([layout.zero for layout in layouts], dtype=np.int64)
        self.keep = np.array([layout.keep_gathered for layout in layouts], dtype=np.int64)
        self.segments = lower(
            architecture.style, architecture.head, self._mode(bool((self.tp > 1).any()))
        )
        self.dims = self._dims()
        self._sizes_of: dict[str, Column] = {}
        self.counts = [architecture.sizes.layers if s.repeats else 1 for s in self.segments]

    def _mode(self, tensor_parallel: bool) -> Mode:
        sizes, training = self.architecture.sizes, self.training
        return Mode(
            types=self.widths.types,
            training=True,
            attention=training.attention,
            padded=training.padded_batches,
            grouped_queries=sizes.heads != sizes.kv_heads,
            attention_dropout=sizes.attention_dropout > 0,
            hidden_dropout=sizes.hidden_dropout > 0,
            embedding_dropout=sizes.embedding_dropout > 0,
            tensor_parallel=tensor_parallel,
        )

    def _dims(self) -> dict[str, Column]:
        tokens = self.training.seq_len
        run = {"B": self.training.micro_batch, "S": tokens, "C": tokens, "KEPT": tokens}
        batch = {name: np.full_like(self.tp, value) for name, value in run.items()}
        return model_dims(self.architecture, self.tp) | batch

    # -- model states ---------------------------------------------------------------------------

    def per_segment(self, itemsize: int, ways: Column | int = 1) -> list[Column]:
        """Parameter bytes of one instance of each segment; tied tensors are the embedding's."""
        made = [tensor_bytes(s, self.dims, itemsize, ways) for s in self.segments]
        made[-1] = made[-1] - self._tied_bytes(itemsize, ways)
        return made

    def _tied_bytes(self, itemsize: int, ways: Column | int = 1) -> Column:
        head = self.architecture.head
        if not (head.tied and head.kind in ("causal-lm", "masked-lm")):
            return np.zeros_like(self.tp)
        return round_up(-(-elements(("V", "E"), self.dims) // ways) * itemsize)

    def total(self, itemsize: int, ways: Column | int = 1) -> Column:
        """Parameter bytes of the whole model on one rank."""
        total: Column = np.zeros_like(self.dp)
        for count, part in zip(self.counts, self.per_segment(itemsize, ways), strict=True):
            total = total + count * part
        return total

    def ways(self, stage: int) -> Column:
        """Over how many ranks a state is split that ZeRO `stage` and above shard."""
        return np.where(self.zero >= stage, self.dp, 1)

    @cached_property
    def resident(self) -> Resident:
        """What each ZeRO stage leaves on a rank for the whole step."""
        widths, sharded_from = self.widths, self.ways
        kind = optimizers()[self.training.optimizer.name]
        optimizer = kind.states * self.total(widths.state, sharded_from(1))
        if widths.master:
            optimizer = optimizer + self.total(widths.master, sharded_from(1))
        kept = np.zeros_like(self.dp)
        if self.training.gradient_accumulation_steps > 1:
            kept = self.total(widths.gradient, sharded_from(2))
        return Resident(
            weights=self.total(widths.stored, sharded_from(3)),
            optimizer=optimizer,
            gradients_kept=kept,
            buckets=self._buckets(),
            inputs=2 * round_up(elements(("B", "S"), self.dims) * INT64),
        )

    def _buckets(self) -> Column:
        """DDP's reduction buckets, one more copy of the gradients; DeepSpeed's one bucket.

        `gradient_as_bucket_view` is False by default (torch/nn/parallel/distributed.py).
        """
        if self.sharding == "fsdp2":
            return np.zeros_like(self.dp)
        size = self.total(self.widths.gradient)
        if self.sharding == "deepspeed":
            size = np.minimum(size, self._bucket("value"))
        return np.where(self.dp > 1, size, 0)

    def _bucket(self, bound: str) -> int:
        return buffer_elements("deepspeed_reduce_bucket", bound) * self.widths.gradient

    # -- the step -------------------------------------------------------------------------------

    @cached_property
    def schedule(self) -> Schedule:
        """One optimizer step: forward, loss, backward, and the step itself."""
        temporary = self._step_temporary()
        resident = self.resident
        whole = self.total(self.widths.gradient, self.ways(2))
        gradients = np.where(resident.gradients_kept > 0, 0, whole)
        return Schedule(
            resident=resident,
            stages=self.all_stages,
            step_bytes=gradients + self._held_outputs(),
            step_temporary=temporary,
            gathered_root=self._root(),
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
        per_parameter = kind.states * widths.state + widths.master
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

    def _units(self) -> list[Column]:
        return self.per_segment(self.widths.types.weight)

    def _root(self) -> Column:
        """FSDP2's root unit: embedding, final norm and head, gathered for the whole pass."""
        units = self._units()
        if self.sharding == "deepspeed":
            return np.zeros_like(self.dp)
        return self._if_gathered(units[0] + units[-1])

    def _unit(self) -> Column:
        """Parameters gathered at a time: one block (FSDP2), the live window (DeepSpeed)."""
        if self.sharding == "deepspeed":
            window = buffer_elements("deepspeed_live_parameters", "value")
            live = np.minimum(self.total(self.widths.types.weight), window * HALF)
            return self._if_gathered(live // 2)
        return self._if_gathered(self._units()[1])

    def _if_gathered(self, size: Column) -> Column:
        sharded = (self.zero == 3) & (self.dp > 1)
        return np.where(sharded, size, 0)

    def _sizes(self, segment: Segment) -> Column:
        if segment.name not in self._sizes_of:
            made = storage_bytes(segment.program, self.dims, len(self.dp))
            self._sizes_of[segment.name] = made
        return self._sizes_of[segment.name]

    def _forward(self) -> list[Stage]:
        """Blocks are gathered one at a time; the last all-gather's buffer lives until the next."""
        root, unit = self._root(), self._unit()
        during = [2 * root, root + 2 * unit, root + unit]
        kept = self.keep * unit
        stages = []
        for index, segment in enumerate(self.segments):
            checkpointed = segment.repeats and self.training.checkpointing == "full"
            events = segment.program.checkpointed if checkpointed else segment.program.forward
            phase = "loss" if segment.name == "head" else "forward"
            after = kept if segment.repeats else np.zeros_like(root)
            stages.append(
                Stage(
                    phase,
                    segment.name,
                    events,
                    self._sizes(segment),
                    self.counts[index],
                    during[index],
                    after,
                )
            )
        return stages

    def _backward(self) -> list[Stage]:
        """Head first; a unit's gradients are reduced to shards when its backward is done."""
        root, unit = self._root(), self._unit()
        reduced = self.per_segment(self.widths.reduced)
        in_flight = self._if_gathered(reduced[1])
        not_kept = 1 - self.keep
        during = [
            root + in_flight,
            root + (1 + not_kept) * unit + in_flight,
            root + not_kept * unit,
        ]
        stages = []
        for index in reversed(range(3)):
            segment = self.segments[index]
            stages.append(
                Stage(
                    "loss" if segment.name == "head" else "backward",
                    segment.name,
                    self._backward_pass(segment),
                    self._sizes(segment),
                    self.counts[index],
                    during[index],
                    self._after_backward(index),
                )
            )
        return stages

    def _backward_pass(self, segment: Segment) -> Pass:
        program = segment.program
        adding = self.training.gradient_accumulation_steps > 1
        if segment.repeats and self.training.checkpointing == "full":
            return program.recompute_accumulating if adding else program.recompute
        return program.backward_accumulating if adding else program.backward

    def _after_backward(self, index: int) -> Column:
        """Correction from whole gradients in the computing type to what the stage keeps of them."""
        adding = self.training.gradient_accumulation_steps > 1
        whole = tensor_bytes(self.segments[index], self.dims, self.widths.types.weight)
        tied = self._tied_bytes(self.widths.types.weight)
        shard = self.per_segment(self.widths.gradient, self.dp)[index]
        sharded = (self.zero >= 2) & (self.dp > 1)
        if adding:
            return np.zeros_like(self.dp)
        # The tied table's two gradients are added up and kept once.
        once = tied if index == 0 else np.zeros_like(self.dp)
        if index == 2:
            # The root's gradients stay whole until the embedding's backward has run.
            return np.zeros_like(self.dp)
        if index == 0:
            head_whole = tensor_bytes(self.segments[2], self.dims, self.widths.types.weight)
            root_shard = shard + self.per_segment(self.widths.gradient, self.dp)[2]
            return np.where(sharded, root_shard - whole - head_whole, -once)
        return np.where(sharded, shard - whole, 0)

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
        kind = optimizers()[self.training.optimizer.name]
        ways = self.ways(1)
        if self.widths.master and self.widths.gradient != FP32:
            return self.total(FP32, ways) * (1 + self._foreach(kind))
        if self.training.optimizer.step == "foreach":
            return self._foreach(kind) * self.total(self.widths.state, ways)
        if self.training.optimizer.step == "for-loop":
            return kind.foreach_temporaries * self._largest_tensor(ways)
        return np.zeros_like(self.dp)

    def _foreach(self, kind: OptimizerKind) -> int:
        return kind.foreach_temporaries if self.training.optimizer.step == "foreach" else 0

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
            size = self.total(self.widths.gradient)
            bucket = [np.minimum(size, self._bucket(b)) for b in ("low", "value", "high")]
            less, more = less + bucket[1] - bucket[0], more + bucket[2] - bucket[1]
        return less, more

    def _largest_tensor(self, ways: Column) -> Column:
        largest = np.zeros_like(self.dp)
        for segment in self.segments:
            for shape, _ in segment.program.parameters:
                size = -(-elements(shape, self.dims) // ways) * self.widths.state
                largest = np.maximum(largest, size)
        return largest
