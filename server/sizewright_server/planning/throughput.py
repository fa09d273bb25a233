"""Hours of a job from its work and the devices' speeds: a stated model with its own interval.

A step computes at a share of the device's peak, waits for what its ranks send each other
(`traffic.py`), and idles in a pipeline's bubble. Sources of the shares: `data/throughput.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sizewright_catalog.speeds import speeds
from sizewright_server.estimation.estimator import PreparedWorkload
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.work import Work
from sizewright_server.estimation.workload import Inference, Layout, Training
from sizewright_server.planning.hours import NEVER, ConstantHours, Hours
from sizewright_server.planning.job import Job
from sizewright_server.planning.kinds import NodeKind
from sizewright_server.planning.machine_speed import (
    FAST,
    LIKELY,
    NARROW,
    SLOW,
    MachineSpeed,
    bands,
    pcie_band,
)
from sizewright_server.planning.modelled import IN_THE_JOB, MODELLED
from sizewright_server.planning.offload_time import Moved
from sizewright_server.planning.traffic import ALL_REDUCE, EACH_WAY, Traffic
from sizewright_server.planning.variants import Variant

Floats = NDArray[np.float64]
#: What makes kinds of node equally fast: the device, how many, its slice, and the network.
Alike: TypeAlias = tuple[str, int, float, bool, int | None, str]
#: Forward and backward pass, in forward passes; a frozen base needs no weight gradients.
PASSES, FROZEN_PASSES = 3.0, 2.0
SECONDS = 3600.0
HALF = 2
#: A network for which nothing waits, in megabits a second.
UNLIMITED = 10**15


class ModelledHours:
    """Hours of a network's job; see the module's text."""

    def __init__(
        self,
        job: Job,
        run: Training | Inference,
        work: Work,
        parameters: int,
        trained_share: float,
        time_factor: tuple[float, float, float],
        measured_factor: tuple[float, float, float],
    ) -> None:
        self.job, self.run, self.work = job, run, work
        self.parameters, self.trained_share = parameters, trained_share
        self.time_factor, self.measured_factor = time_factor, measured_factor
        samples = job.samples if job.samples is not None else (job.tokens or 0) / self._tokens()
        self.samples = float(samples)
        #: The likely hours of a layout on a device: asked again by every question of a workload.
        self._likely: dict[tuple[Layout, Alike], float] = {}

    def columns(self, layouts: Sequence[Layout], kinds: Sequence[NodeKind]) -> Floats:
        """The best estimate: a row per layout, a column per kind; infinite where not known."""
        # Host memory makes kinds that are equally fast.
        alike = [_alike(kind) for kind in kinds]
        first = dict(zip(reversed(alike), reversed(kinds), strict=True))
        column = {key: i for i, key in enumerate(first)}
        made = np.array(
            [[self._kept(one, kind, key) for key, kind in first.items()] for one in layouts]
        )
        return made[:, [column[key] for key in alike]]

    def _kept(self, layout: Layout, kind: NodeKind, alike: Alike) -> float:
        known = self._likely.get((layout, alike))
        if known is None:
            known = self._likely[layout, alike] = self._hours(layout, kind, LIKELY)
        return known

    def of(self, layout: Layout, kind: NodeKind) -> tuple[float, float, float]:
        """Low, best and high: with every share at its fastest, likely and slowest."""
        low, best, high = (self._hours(layout, kind, at) for at in (FAST, LIKELY, SLOW))
        return low, best, high

    def waiting(self, layout: Layout, kind: NodeKind) -> float:
        """The likely share of its time that a layout waits for the network between nodes."""
        hours = self._hours(layout, kind, LIKELY)
        alone = self._hours(layout, replace(kind, network_mbps=UNLIMITED), LIKELY)
        return 1 - alone / hours if 0 < hours < NEVER else 0.0

    def _tokens(self) -> int:
        if isinstance(self.run, Inference):
            return max(self.run.input_tokens + self.run.new_tokens, 1)
        return max(self.work.tokens, 1)

    def _hours(self, layout: Layout, kind: NodeKind, at: str) -> float:
        end = {FAST: 0, LIKELY: 1, SLOW: 2}[at]
        name = kind.device.name if kind.device else ""
        if name in self.job.measured:
            speed = self.job.measured[name] / self._tokens()
            factor = self.measured_factor[end]
            band = bands()["measured"][{FAST: SLOW, LIKELY: LIKELY, SLOW: FAST}[at]]
            return float(self.samples / (speed * layout.gpus) * band * factor / SECONDS)
        if kind.device is None or name not in speeds():
            return NEVER
        machine = MachineSpeed(speeds()[name], kind, at)
        training = isinstance(self.run, Training)
        each = self._training(layout, machine) if training else self._inference(layout, machine)
        return self.samples * each * self.time_factor[end] / SECONDS

    def _training(self, layout: Layout, machine: MachineSpeed) -> float:
        """Seconds per sample of a whole plan."""
        run = self.run
        assert isinstance(run, Training)
        passes = PASSES if self.trained_share > 1 / HALF else FROZEN_PASSES
        passes += 1.0 if run.checkpointing == "full" else 0.0
        each = passes * run.micro_batch * layout.dp / layout.gpus
        number = run.precision.removesuffix("-mixed")
        scores = self.work.attention_flops
        products = machine.compute((self.work.forward_flops - scores) * each, number)
        attention = machine.compute(scores * each, "bf16" if number in NARROW else number)
        compute = products + attention
        if compute == NEVER:
            return NEVER
        sent = Traffic(
            self.work,
            run,
            layout,
            machine,
            self.parameters,
            self.trained_share,
            compute,
            attention,
        )
        steps = run.gradient_accumulation_steps
        micro_batch = compute + sent.unbalanced + sent.micro_batch()
        passed = micro_batch * steps * sent.bubble
        moved = self._off_the_gpu(layout, machine)
        return (passed + sent.gradients() + moved) / (run.micro_batch * steps * layout.dp)

    def _off_the_gpu(self, layout: Layout, machine: MachineSpeed) -> float:
        """Seconds an optimizer step takes off the GPU; 0 where it runs there."""
        if layout.offload == "none":
            return 0.0
        assert isinstance(self.run, Training)
        trained = int(self.parameters * self.trained_share)
        state = Moved(self.run.optimizer.name, trained, layout, machine.kind.per_node)
        return state.seconds(machine.at, pcie_band(machine.speed.pcie_generation)[machine.at])

    def _inference(self, layout: Layout, machine: MachineSpeed) -> float:
        """Seconds per sequence: the prompt at the peak's share, tokens at the memory's."""
        run = self.run
        assert isinstance(run, Inference)
        split = layout.gpus // layout.dp
        kind = run.weight_dtype
        prompt = machine.compute(self.work.forward_flops * run.batch / split, kind)
        width = 4 if kind == "fp32" else 2
        read = self.work.active_parameters * width / split
        context = run.input_tokens + run.new_tokens / 2
        cache = run.batch * context * self.work.kv_elements_per_token * width / split
        token = machine.read(read + cache)
        sent = self._tensor_parallel(layout, machine, width)
        return (prompt + run.new_tokens * token + sent) / (run.batch * layout.dp)

    def _tensor_parallel(self, layout: Layout, machine: MachineSpeed, width: int) -> float:
        """Seconds of the all-reduces of every token read and made: two a block."""
        assert isinstance(self.run, Inference)
        tokens = self.run.batch * (self.work.positions + self.run.new_tokens)
        volume = EACH_WAY * tokens * self.work.layers * self.work.hidden * width
        shared = ALL_REDUCE * volume * (layout.tp - 1) / layout.tp
        return machine.gathered(shared, layout.tp, machine.together(1))


def _alike(kind: NodeKind) -> Alike:
    device = kind.device.name if kind.device else ""
    network = (kind.connected, kind.network_mbps, kind.fabric)
    return (device, kind.per_node, kind.slice, *network)


def hours_of(job: Job | None) -> Callable[[Variant], Hours] | None:
    """What tells the hours of a job's variants; None where no job is stated."""
    return None if job is None else partial(_hours, job)


@lru_cache(maxsize=256)
def speed_of(variant: Variant) -> Hours | None:
    """What tells which layout of a variant is the fastest; None where that is not modelled."""
    if not isinstance(variant.prepared, PreparedWorkload):
        return None
    return _hours(Job(samples=1), variant)


def _hours(job: Job, variant: Variant) -> Hours:
    if job.runtime_hours is not None:
        return ConstantHours(job.runtime_hours)
    prepared = variant.prepared
    if not isinstance(prepared, PreparedWorkload):
        words = "of this workload is not modelled; state 'runtime_hours' in place of its size"
        raise UnsupportedWorkload(Violation("job", f"the time {words}"))
    trained = prepared.trainable_parameter_count / max(prepared.parameter_count, 1)
    modelled = variant.time_factor_without(MODELLED)
    if any(step.name == "qlora" for step in variant.steps):
        # Its figure is against training all weights; the frozen base's pass is modelled.
        low, best, high = (factor * PASSES / FROZEN_PASSES for factor in modelled)
        modelled = low, best, high
    measured = variant.time_factor_without(IN_THE_JOB)
    run, count = prepared.workload.run, prepared.parameter_count
    return ModelledHours(job, run, prepared.work, count, trained, modelled, measured)
