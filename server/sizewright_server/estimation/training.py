"""Training as a schedule: what is resident, and the stages of one optimizer step, per layout.

Layouts that share a library, its settings and the structure of their parallelism are one group with
one schedule, seen from one stage of the pipeline; everything in it is a column over the group's
layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from sizewright_server.estimation.adapters import adapter_dims, virtual_tokens
from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.exchanges import context_bytes, expert_bytes, imbalance
from sizewright_server.estimation.inputs import input_bytes
from sizewright_server.estimation.layout import Sharding
from sizewright_server.estimation.lowering import Dims, Segment, lower
from sizewright_server.estimation.model_states import ModelStates
from sizewright_server.estimation.modeling import (
    loss_chunk_tokens,
    loss_kernel,
    modeling_code,
    restyle,
    training_loop,
)
from sizewright_server.estimation.offload import Placement, placement
from sizewright_server.estimation.ops import FP32, INT64
from sizewright_server.estimation.optimizers import OptimizerKind, optimizers
from sizewright_server.estimation.parallel import ParallelColumns
from sizewright_server.estimation.pipeline import Position, chunks_in_flight, stage_counts
from sizewright_server.estimation.profile import (
    EMPTY_PASS,
    Column,
    Pass,
    elements,
    round_up,
    storage_bytes,
    walk,
)
from sizewright_server.estimation.sharding import WorkingSet, working_set
from sizewright_server.estimation.states import (
    HALF,
    ITEMSIZES,
    Widths,
    buffer_elements,
    state_widths,
)
from sizewright_server.estimation.timeline import Stage
from sizewright_server.estimation.transformer import Mode, residual_itemsize
from sizewright_server.estimation.workload import Layout, Training

#: Libraries that step with fused kernels of their own, whatever the optimizer's own step is.
FUSED = ("deepspeed", "megatron")


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes per GPU that are there for the whole step, by name."""

    weights: Column
    optimizer: Column
    gradients_kept: Column
    buckets: Column
    inputs: Column
    waiting: Column
    workspaces: Column
    imbalance: Column
    moving_average: Column
    reference: Column

    @property
    def total(self) -> Column:
        """Their sum."""
        total: Column = sum(getattr(self, field.name) for field in fields(self))
        return total


@dataclass(frozen=True, slots=True)
class Schedule:
    """A group's resident bytes, its stages, and what the optimizer step adds to its states."""

    resident: Resident
    stages: tuple[Stage, ...]
    step_bytes: Column
    step_temporary: Column


class TrainingGroup:
    """Layouts of one library and structure, as one stage of their pipelines holds them."""

    def __init__(
        self,
        architecture: Architecture,
        training: Training,
        layouts: Sequence[Layout],
        position: Position = "only",
    ) -> None:
        self.architecture = architecture
        self.training = training
        self.layouts = tuple(layouts)
        self.position: Position = position
        self.layout = layouts[0]
        self.sharding: Sharding = self.layout.sharding
        self.widths: Widths = state_widths(training, self.sharding)
        if self.sharding == "megatron" and not self.layout.megatron.fp32_main_gradients:
            self.widths = replace(self.widths, gradient=HALF, reduced=HALF)
        self.parallel = ParallelColumns.of(layouts)
        self.placement: Placement = placement(self.layout)
        self.segments = lower(restyle(architecture, training), self._mode(), training.seq_len)
        self.dims_of = self._dims()
        self.dims = self.dims_of.of(architecture.sizes)
        self.counts = stage_counts(self.segments, self.parallel.pp, self.parallel.virtual, position)
        self.states = ModelStates(
            architecture, self.segments, self.counts, self.dims_of, self.parallel, self.widths
        )
        self.working: WorkingSet = working_set(self.states, self.layout)
        self._sizes_of: dict[str, Column] = {}

    def _mode(self) -> Mode:
        training = self.training
        return Mode(
            types=replace(self.widths.types, unfused=training.unfused_activations),
            training=True,
            attention=training.attention,
            padded=self._masked,
            sequence_parallel=self.layout.sequence_parallel,
            library="megatron" if self.sharding == "megatron" else "model",
            recomputes_attention=training.checkpointing == "selective",
            checkpointed=training.checkpointing != "none",
            selective=self._policy,
            every_layers=training.checkpoint_policy.every_layers if self._recomputes else 1,
            loss=loss_kernel(training),
            loop=training_loop(training),
            # PEFT makes the embedding's output take a gradient when blocks are checkpointed.
            learns_inputs=training.checkpointing != "none",
        )

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
        batch |= adapter_dims(self.training.adapter, self.architecture.sizes)
        batch |= self._split_dims(tokens)
        return Dims(self.parallel.tp, batch, self.parallel.ep)

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
            return {"SR": rows, "VP": padded, "V": padded, "VL": padded}
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

    @cached_property
    def resident(self) -> Resident:
        """What is on a rank for the whole step."""
        states, stays = self.states, self.placement
        optimizer = states.optimizer(self.training.optimizer) * stays.optimizer
        weights = states.weights(3) * stays.weights
        return Resident(
            weights=weights.astype(np.int64),
            optimizer=optimizer.astype(np.int64),
            gradients_kept=self._gradients_kept(),
            buckets=self.working.buffers.best,
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

    def _reference(self) -> Column:
        """The reference model of preference tuning: weights that are never trained."""
        preference = self.training.preference
        if preference is None or preference.reference != "model":
            return np.zeros_like(self.dp)
        return self.states.weights(3)

    @cached_property
    def load_bytes(self) -> Column:
        """Weights while a sharded model is loaded, where the recipe gathers them whole to do so."""
        whole = modeling_code(self.training.modeling_code).loads_whole
        if not whole:
            return np.zeros_like(self.dp)
        gathers = self.parallel.gathers
        return self.resident.weights + np.multiply(gathers, self.states.gathered_total())

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
        states, zero = self.states, self.parallel.zero
        whole = states.total(self.widths.gradient, 2)
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

    def _workspaces(self, bound: str) -> int:
        """Transformer Engine's own cuBLAS workspaces, tensors of the caching allocator."""
        megatron = self.sharding == "megatron"
        if not megatron or self.layout.megatron.transformer_impl == "local":
            return 0
        return buffer_elements("transformer_engine_workspaces", bound)

    @property
    def _buffered(self) -> bool:
        """Gradients live in buffers that are never freed."""
        several = bool((self.parallel.replicas > 1).any())
        return self.sharding == "megatron" or (self.layout.bucket_view and several)

    def _waiting(self) -> Column:
        """Saved activations of the other micro-batches in flight, and what travels between stages.

        A stage without the embedding holds the hidden states it was sent.
        """
        if self.position == "only":
            return np.zeros_like(self.dp)
        virtual, micro = self.parallel.virtual, self.training.gradient_accumulation_steps
        chunks = chunks_in_flight(
            self.layout.pipeline_schedule, self.parallel.pp, virtual, micro, self.position
        )
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

    # -- the step -------------------------------------------------------------------------------

    @cached_property
    def schedule(self) -> Schedule:
        """One optimizer step: forward, loss, backward, and the step itself."""
        whole = self.states.total(self.widths.gradient, 2) * self.placement.gradients
        gradients = np.where(self.resident.gradients_kept > 0, 0, whole).astype(np.int64)
        if self.training.optimizer.in_backward:
            gradients = np.zeros_like(gradients)
        return Schedule(
            resident=self.resident,
            stages=self.all_stages,
            step_bytes=gradients + self._held_outputs(),
            step_temporary=self._step_temporary(),
        )

    @cached_property
    def all_stages(self) -> tuple[Stage, ...]:
        """The stages of forward, loss and backward."""
        return (*self.forward_stages, *self._backward())

    def resident_numbers(self, parameters: int) -> list[tuple[str, int, str]]:
        """Name, bytes and numbers of what is there throughout, for the first layout."""
        widths, parallel = self.widths, self.parallel
        whole = int(self.tp[0]) * int(parallel.pp[0])
        ways = [f"over {int(parallel.ways(stage)[0]) * whole}" for stage in (1, 2, 3)]
        kind = optimizers()[self.training.optimizer.name]
        per_parameter = (kind.whole_states or 0) * widths.state + widths.master
        resident = self.resident
        batch = f"2 x {self.training.rows} x {self.training.seq_len} x {INT64} B"
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

    def _flight_numbers(self) -> str:
        chunks = chunks_in_flight(
            self.layout.pipeline_schedule,
            self.parallel.pp,
            self.parallel.virtual,
            self.training.gradient_accumulation_steps,
            self.position,
        )
        return f"{int(chunks[0])} chunks in flight of {int(self.parallel.virtual[0])} per rank"

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

    @cached_property
    def forward_stages(self) -> list[Stage]:
        """Blocks one after the other; the working set says what is gathered for them."""
        return [
            Stage(
                "loss" if segment.role == "head" else "forward",
                segment.name,
                self._forward_pass(segment),
                self._sizes(segment),
                self.counts[index],
                self._held_forward(index),
                self.working.after_forward(index) - self._fetched(segment),
                after_part=self._after_part(segment),
            )
            for index, segment in enumerate(self.segments)
        ]

    def _held_forward(self, index: int) -> Column:
        """Bytes held while a segment runs forward: gathered, exchanged, left from the last step."""
        exchanged = self._exchanged[0] * int(self.segments[index].repeats)
        held: Column = self.working.forward(index) + self._from_last_step + exchanged
        return held

    @cached_property
    def _from_last_step(self) -> Column:
        """What the step before left until this one's forward pass has returned.

        A loop that holds the model's outputs holds their graph, and with it the inputs that nodes
        keep as attributes; Lightning's recipes hold the logits themselves.
        """
        total = np.zeros_like(self.dp)
        if training_loop(self.training) != "fabric":
            return total
        for segment, count in zip(self.segments, self.counts, strict=True):
            sizes = self._sizes(segment)
            for storage in segment.program.lingering:
                total = total + count * sizes[storage]
        return total + self._held_outputs()

    @cached_property
    def _exchanged(self) -> tuple[Column, Column]:
        """Bytes of context parallelism's exchanges in a block's two passes."""
        width = self.widths.types.compute
        return context_bytes(self.layout.context_method, self.dims, self.parallel.cp, width)

    @property
    def _recomputes(self) -> bool:
        """Blocks are checkpointed; Megatron's own selective kind is a matter of its layers."""
        kind = self.training.checkpointing
        return kind == "full" or (kind == "selective" and self.sharding != "megatron")

    @property
    def _policy(self) -> str:
        selective = self.training.checkpointing == "selective" and self._recomputes
        return self.training.checkpoint_policy.selective if selective else ""

    def _is_checkpointed(self, segment: Segment) -> bool:
        return segment.repeats and segment.recomputed and self._recomputes

    def _forward_pass(self, segment: Segment) -> Pass:
        checkpointed = self._is_checkpointed(segment)
        return segment.program.checkpointed if checkpointed else segment.program.forward

    @cached_property
    def _left_for_host(self) -> Column:
        """Bytes of a checkpointed block's input that wait in host memory for its backward pass."""
        if not (self.training.checkpoint_policy.offload and self._recomputes):
            return np.zeros_like(self.dp)
        width = residual_itemsize(self.architecture.style, self._mode())
        return round_up(elements(("B", "S", "H"), self.dims) * width)

    def _backward(self) -> list[Stage]:
        """Head first; at the end the root's gradients are reduced."""
        stages = []
        for index, segment in reversed(list(enumerate(self.segments))):
            stages.append(
                Stage(
                    "loss" if segment.role == "head" else "backward",
                    segment.name,
                    self._backward_pass(segment),
                    self._sizes(segment),
                    self.counts[index],
                    self._during_backward(index),
                    self._after_backward(index) + self._fetched(segment),
                    after_part=self._after_part(segment),
                )
            )
        nothing, once = np.zeros_like(self.dp), np.ones_like(self.dp)
        first = self.segments[0]
        closing = self.working.closing()
        stages.append(
            Stage("backward", first.name, EMPTY_PASS, self._sizes(first), once, closing, nothing)
        )
        return stages

    def _during_backward(self, index: int) -> Column:
        segment = self.segments[index]
        held = self.working.backward(index) + self._exchanged[1] * int(segment.repeats)
        # An offloaded input is back before its block runs, and the next one on its way.
        return held + 2 * self._fetched(segment)

    def _after_part(self, segment: Segment) -> str:
        """Where what stays of an instance counts: inputs gone to the host, or gradients."""
        leaves = self._is_checkpointed(segment) and self.training.checkpoint_policy.offload
        return "hidden-states" if leaves else "reduced-or-gathered"

    def _fetched(self, segment: Segment) -> Column:
        return self._left_for_host * int(self._is_checkpointed(segment))

    def _after_backward(self, index: int) -> Column:
        """What stays of a segment's gradients; shards that were there before are not counted twice.

        Offloaded gradients leave as they are reduced.
        """
        if self.adds_in_place:
            return np.zeros_like(self.dp)
        if self.training.optimizer.in_backward:
            return -self._whole_gradients(index)
        left = self.working.after_backward(index)
        return left - self.working.left_shard(index) if self.adding else left

    def _whole_gradients(self, index: int) -> Column:
        """The gradients of a segment as the tape makes them; of the whole root at its last."""
        width = self.states.gradient_width
        if self.segments[index].repeats:
            return self.states.whole(index, width)
        if index:
            return np.zeros_like(self.dp)
        of_root = [i for i, segment in enumerate(self.segments) if not segment.repeats]
        total: Column = np.sum([self.states.whole(i, width) for i in of_root], axis=0)
        return total

    @property
    def adding(self) -> bool:
        """Gradients accumulate over micro-batches."""
        return self.training.gradient_accumulation_steps > 1

    @property
    def adds_in_place(self) -> bool:
        """New gradients are added to whole ones as they are made; to shards, when reduced."""
        return (self.adding or self._buffered) and not bool((self.parallel.zero >= 2).any())

    def first_of_several(self) -> TrainingGroup:
        """The group as its first micro-batch runs, when no gradient is there yet."""
        alone = replace(self.training, gradient_accumulation_steps=1)
        return TrainingGroup(self.architecture, alone, self.layouts, self.position)

    def _backward_pass(self, segment: Segment) -> Pass:
        program = segment.program
        if self._is_checkpointed(segment):
            return program.recompute_accumulating if self.adds_in_place else program.recompute
        return program.backward_accumulating if self.adds_in_place else program.backward

    def _held_outputs(self) -> Column:
        """The model's output object keeps the logits until the step is over."""
        head = self.segments[-1]
        outputs = head.program.output_storages[1:]
        held: Column = np.zeros_like(self.dp)
        for storage in outputs:
            held = held + self._sizes(head)[storage]
        return held * self.states.here(-1)

    def _step_temporary(self) -> Column:
        """Lists the foreach step makes, or one tensor's worth for the plain loop.

        A master copy is stepped with an fp32 copy of its gradients.
        """
        kind, widths = optimizers()[self.training.optimizer.name], self.widths
        if not self.placement.steps_on_gpu:
            return np.zeros_like(self.dp)
        if widths.master and widths.gradient != FP32:
            copied = self.states.total(FP32, 1)
            group = buffer_elements("deepspeed_sub_group", "value") * FP32
            return np.where(self.parallel.zero == 3, np.minimum(copied, group), copied)
        if self.sharding in FUSED:
            return np.zeros_like(self.dp)
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
            unfused = 5 * elements(("B", "S", "F"), self.dims) * width
            unfused = unfused * (not self.training.unfused_activations)
            accumulated = elements(("B", "S", "A"), self.dims) * FP32
            more = unfused + np.where(self.training.attention == "eager", 0, accumulated)
        buffers = self.working.buffers
        low, value, high = (self._workspaces(bound) for bound in ("low", "value", "high"))
        less, more = less + buffers.less + value - low, more + buffers.more + high - value
        rows = imbalance(self.layout)
        best, busiest = self._imbalanced(rows.best), self._imbalanced(rows.high)
        return less + best - self._imbalanced(rows.low), more + busiest - best
