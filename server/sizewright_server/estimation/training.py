"""Training as a schedule: what is resident, and the stages of one optimizer step, per layout.

Layouts that share a library, its settings and the structure of their parallelism are one group with
one schedule; everything in it is a column over the group's layouts, at each stage of a pipeline
that may be the fullest. A group is built up in `training_setup`, `training_passes`,
`training_resident` and `training_numbers`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sizewright_server.estimation.exchanges import imbalance
from sizewright_server.estimation.modeling import trl_not_stated
from sizewright_server.estimation.ops import FP32
from sizewright_server.estimation.optimizers import OptimizerKind, optimizers
from sizewright_server.estimation.profile import Column, elements
from sizewright_server.estimation.recurrence_checks import path_not_stated
from sizewright_server.estimation.sharding import engine_workspaces
from sizewright_server.estimation.states import buffer_elements
from sizewright_server.estimation.timeline import run_timeline
from sizewright_server.estimation.training_numbers import NumberedGroup
from sizewright_server.estimation.training_resident import Resident

#: Libraries that step with fused kernels of their own, whatever the optimizer's own step is.
FUSED = ("deepspeed", "megatron")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A group's resident bytes, and what the optimizer step adds to its states."""

    resident: Resident
    step_bytes: Column
    step_temporary: Column


class TrainingGroup(NumberedGroup):
    """Layouts of one library and structure: their whole step, and how sure its bytes are."""

    @cached_property
    def schedule(self) -> Schedule:
        """One optimizer step: forward, loss, backward, and the step itself."""
        whole = self.working.stepped() * self.placement.gradients
        gradients = np.where(self.resident.gradients_kept > 0, 0, whole).astype(np.int64)
        if self.training.optimizer.in_backward:
            gradients = np.zeros_like(gradients)
        return Schedule(
            resident=self.resident,
            step_bytes=gradients + self._held_outputs,
            step_temporary=self._step_temporary(),
        )

    def step_parts(self) -> dict[str, int]:
        """Bytes by part that the optimizer step adds to the resident ones."""
        schedule, at = self.schedule, self.shown
        held = int(self._held_outputs[at])
        return {
            "gradients": int(schedule.step_bytes[at]) - held,
            "logits-held": held,
            "step-temporaries": int(schedule.step_temporary[at]),
        }

    def alone(self) -> TrainingGroup:
        """The first layout at the position that is shown, and nothing else."""
        if len(self.parallel.dp) == 1:
            return self
        return TrainingGroup(self.architecture, self.training, self.layouts[:1], [self.position])

    def first_of_several(self) -> TrainingGroup:
        """The group as its first micro-batch runs, when no gradient is there yet."""
        alone = replace(self.training, gradient_accumulation_steps=1)
        return TrainingGroup(self.architecture, alone, self.layouts, self.positions)

    @cached_property
    def runs_recurrence_kernels(self) -> bool:
        """Recurrent layers run in kernels of their own, or are taken to."""
        return self.architecture.recurrent and self.architecture.style.fused_recurrence

    @cached_property
    def peaks_without_kernels(self) -> dict[str, Column]:
        """Each phase's peak, were recurrent layers run in torch's operators; empty where the run
        says which they are run in."""
        kernels = self.training.kernels
        if not path_not_stated(self.architecture, self.training):
            return {}
        without = replace(self.training, kernels=replace(kernels, recurrence="eager"))
        other = TrainingGroup(self.architecture, without, self.layouts, self.positions)
        peaks = run_timeline(other.resident.total, other.course)
        return {peak.phase: peak.peak_bytes for peak in peaks}

    def _step_temporary(self) -> Column:
        """Lists the foreach step makes, or one tensor's worth for the plain loop.

        A master copy is stepped with an fp32 copy of its gradients.
        """
        kind, widths = optimizers()[self.training.optimizer.name], self.widths
        if not self.placement.steps_on_gpu:
            return self.nothing
        aware = self.sharding == "megatron" and self.layout.megatron.precision_aware_optimizer
        if widths.master and widths.gradient != FP32 and not aware:
            copied = self.states.total(FP32, 1)
            stated = self.layout.zero_buffers.sub_group_size
            group = stated or buffer_elements("deepspeed_sub_group", "value")
            return np.where(self.parallel.zero == 3, np.minimum(copied, group * FP32), copied)
        if self.sharding in FUSED:
            return self.nothing
        if self.training.optimizer.step == "foreach":
            return self._foreach(kind) * self.states.total(widths.state, 1)
        if self.training.optimizer.step == "for-loop":
            return self.states.one_by_one(kind.loop, widths.state)
        return self.nothing

    def _foreach(self, kind: OptimizerKind) -> int:
        return (kind.foreach or 0) if self.training.optimizer.step == "foreach" else 0

    def doubt(self, phase: str) -> tuple[Column, Column]:
        """Bytes a phase may hold less, and more, than the schedule says.

        Less: a training loop that keeps only the loss frees the logits at once. More: activation
        and attention kernels that are not fused hold intermediate tensors in the backward pass
        (silu's unfused backward makes four more; flash attention adds up dQ in fp32), and
        DeepSpeed's buffers depend on its configuration.
        """
        less, more = self._lasting_doubt
        if phase in ("loss", "backward", "optimizer-step"):
            less = less + self._held_outputs
        if phase == "loss" and trl_not_stated(self.training):
            # Older releases have the logits, their log-softmax and the gradients of both; under
            # autocast the log-softmax's are in fp32.
            tensors = 6 if self.widths.types.autocast else 4
            logits = elements(("B", "S", "VL"), self.dims) * self.widths.types.compute
            more = more + tensors * logits
        if phase == "backward":
            width = self.widths.types.compute
            unfused = 5 * elements(("B", "S", "F"), self.dims) * width
            unfused = unfused * (not self.training.traced)
            accumulated = elements(("B", "S", "A"), self.dims) * FP32
            more = more + unfused + np.where(self.training.attention == "eager", 0, accumulated)
        return less, more

    @cached_property
    def _lasting_doubt(self) -> tuple[Column, Column]:
        """What every phase may hold less, and more."""
        buffers, rows = self.working.buffers, imbalance(self.layout)
        low, value, high = (
            engine_workspaces(self.layout, self.segments, bound)
            for bound in ("low", "value", "high")
        )
        best, busiest = self._imbalanced(rows.best), self._imbalanced(rows.high)
        copies = self._attention_copies()
        less = buffers.less + value - low + self.resident.narrow_weights // 2
        less = less + best - self._imbalanced(rows.low) + copies
        more = buffers.more + high - value + busiest - best + 2 * copies
        return less, more + self._of_unread_weights()

    def _of_unread_weights(self) -> Column:
        """What a library makes for weights that do not run, where nobody froze them.

        DeepSpeed's optimizers flatten all that asks for a gradient, DDP has it in its buckets;
        elsewhere a weight without a gradient has no states.
        """
        states, widths = self.states, self.widths
        if not self.architecture.tower or self.training.adapter is not None:
            return self.nothing
        if self.sharding == "deepspeed":
            kind = optimizers()[self.training.optimizer.name]
            made = states.unread(widths.gradient, 2) + states.unread(widths.master, 1)
            return made + (kind.whole_states or 2) * states.unread(widths.state, 1)
        if self.sharding == "ddp":
            return states.unread(widths.gradient) * (self.parallel.replicas > 1)
        return self.nothing

    def _attention_copies(self) -> Column:
        """One copy of the queries in every block that waits for its backward pass.

        Which of Transformer Engine's attention kernels runs, and with it the copies it keeps,
        depends on the GPU: 1.04 GB of 57 are between A100 and H100 in one test of Megatron-LM.
        """
        if self.sharding != "megatron":
            return self.nothing
        one = elements(("B", "S", "A"), self.dims) * self.widths.types.compute
        blocks: Column = self.nothing
        for segment, count in zip(self.segments, self.counts, strict=True):
            if segment.repeats and not self.is_checkpointed(segment):
                blocks = blocks + count
        return one * blocks * self._chunks // self.parallel.virtual
