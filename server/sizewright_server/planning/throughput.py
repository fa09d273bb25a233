"""Hours of a job from its work and the devices' speeds: a stated model with its own interval.

A step computes at a share of the device's peak, waits for tensor-parallel and sharded collectives,
and idles in a pipeline's bubble. Sources of the shares: `data/throughput.json`; of the volumes:
Rajbhandari et al. 2020 (ZeRO), Shoeybi et al. 2019 (tensor parallelism), Narayanan et al. 2021
(pipelines).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from importlib import resources
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sizewright_catalog.speeds import Speed, speeds
from sizewright_server.estimation.estimator import PreparedWorkload
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.work import Work
from sizewright_server.estimation.workload import Inference, Layout, Training
from sizewright_server.planning.hours import NEVER, ConstantHours, Hours
from sizewright_server.planning.job import Job
from sizewright_server.planning.kinds import NodeKind
from sizewright_server.planning.modelled import IN_THE_JOB, MODELLED
from sizewright_server.planning.offload_time import Moved
from sizewright_server.planning.variants import Variant

Floats = NDArray[np.float64]
#: What makes kinds of node equally fast: the device, how many, its slice, and the network.
Alike: TypeAlias = tuple[str, int, float, bool, int | None, str]
#: Indices of a band.
SLOW, LIKELY, FAST = "low", "value", "high"
#: Forward and backward pass, in forward passes; a frozen base needs no weight gradients.
PASSES, FROZEN_PASSES = 3.0, 2.0
SECONDS = 3600.0
HALF = 2
#: Bytes of a megabit.
MEGABIT = 10**6 / 8
#: A network for which nothing waits, in megabits a second.
UNLIMITED = 10**15
#: GPUs of the largest common node.
WHOLE_NODE = 8


@cache
def bands() -> dict[str, Any]:
    """Shares and speeds with their bands: `data/throughput.json`."""
    text = resources.files("sizewright_server.planning").joinpath("data/throughput.json")
    table: dict[str, Any] = json.loads(text.read_text(encoding="utf-8"))
    return table


def pcie_band(generation: int) -> dict[str, Any]:
    """Bytes a second over PCIe; of a generation that is not in the table, those of the nearest."""
    band: dict[str, Any] = bands()["pcie_bytes_per_second"][str(min(max(generation, 3), 5))]
    return band


class ModelledHours:
    """Hours of a network's job; see the module's text."""

    def __init__(
        self,
        job: Job,
        run: Training | Inference,
        work: Work,
        trained_share: float,
        time_factor: tuple[float, float, float],
        measured_factor: tuple[float, float, float],
    ) -> None:
        self.job, self.run, self.work = job, run, work
        self.trained_share = trained_share
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
        machine = _Machine(speeds()[name], kind, at)
        training = isinstance(self.run, Training)
        each = self._training(layout, machine) if training else self._inference(layout, machine)
        return self.samples * each * self.time_factor[end] / SECONDS

    def _training(self, layout: Layout, machine: _Machine) -> float:
        """Seconds per sample of a whole plan."""
        run = self.run
        assert isinstance(run, Training)
        split = layout.gpus // layout.dp
        passes = PASSES if self.trained_share > 1 / HALF else FROZEN_PASSES
        passes += 1.0 if run.checkpointing == "full" else 0.0
        flops = self.work.forward_flops * passes * run.micro_batch / split
        compute = machine.compute(flops, run.precision.removesuffix("-mixed"))
        if compute == NEVER:
            return NEVER
        width = 4 if run.precision == "fp32" else 2
        micro = compute + self._tensor_parallel(layout, machine, run.micro_batch, width)
        steps = run.gradient_accumulation_steps
        weights = self.work.active_parameters * width / split
        if layout.zero >= 3:
            micro += machine.exposed(3 * weights, layout, compute)
            reduced = 0.0
        else:
            volume = 2 * weights * self.trained_share
            reduced = machine.exposed(volume, layout, compute * HALF / PASSES)
        bubble = 1 + (layout.pp - 1) / max(steps, 1)
        moved = self._off_the_gpu(layout, machine)
        return (micro * steps * bubble + reduced + moved) / (run.micro_batch * steps * layout.dp)

    def _off_the_gpu(self, layout: Layout, machine: _Machine) -> float:
        """Seconds an optimizer step takes off the GPU; 0 where it runs there."""
        if layout.offload == "none":
            return 0.0
        assert isinstance(self.run, Training)
        trained = int(self.work.active_parameters * self.trained_share)
        state = Moved(self.run.optimizer.name, trained, layout, machine.kind.per_node)
        return state.seconds(machine.at, pcie_band(machine.speed.pcie_generation)[machine.at])

    def _tensor_parallel(self, layout: Layout, machine: _Machine, batch: int, width: int) -> float:
        """Four all-reduces a layer, two in each pass (Shoeybi et al. 2019), none overlapped."""
        if layout.tp == 1:
            return 0.0
        volume = 4 * self.work.layers / layout.pp * batch * self.work.positions
        share = 2 * (layout.tp - 1) / layout.tp
        return (
            volume
            * self.work.hidden
            * width
            * share
            / machine.link(layout.tp, machine.kind.per_node)
        )

    def _inference(self, layout: Layout, machine: _Machine) -> float:
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
        return (prompt + run.new_tokens * token) / (run.batch * layout.dp)


def _alike(kind: NodeKind) -> Alike:
    device = kind.device.name if kind.device else ""
    network = (kind.connected, kind.network_mbps, kind.fabric)
    return (device, kind.per_node, kind.slice, *network)


@dataclass(frozen=True, slots=True)
class _Machine:
    """A kind of node at one end of the bands."""

    speed: Speed
    kind: NodeKind
    at: str

    def compute(self, flops: float, number: str) -> float:
        """Seconds of matrix products; never where the device has no such peak."""
        peak = self.speed.flops.get(number)
        if not peak or self.kind.device is None:
            return NEVER
        shares = bands()["model_flops_utilization"]
        band = shares.get(self.kind.device.architecture.split()[0], shares["other"])
        return float(flops / (peak * self.kind.slice * band[self.at]))

    def read(self, size_bytes: float) -> float:
        """Seconds to read bytes of device memory."""
        share = bands()["memory_bandwidth_utilization"][self.at]
        bandwidth = self.speed.memory_bytes_per_second * self.kind.slice * share
        return float(size_bytes / bandwidth) if bandwidth else NEVER

    def link(self, ranks: int, together: int) -> float:
        """Bytes a second that each rank of a collective gets, `together` of its ranks on a node.

        A byte crosses between two nodes once for all ranks on them, so these share the network's
        whole bandwidth as if it were each one's own (bus bandwidth, nccl-tests PERFORMANCE.md);
        inside a node it goes over the links.
        """
        if ranks <= together:
            return self._links()
        network = self._network() * together
        return network if together == 1 else min(network, self._links())

    def _links(self) -> float:
        """Bytes a second between GPUs of one node."""
        if self.speed.link_bytes_per_second:
            return float(self.speed.link_bytes_per_second * bands()["link_share"][self.at])
        return float(pcie_band(self.speed.pcie_generation)[self.at])

    def _network(self) -> float:
        """Bytes a second and GPU between nodes: a share of what is stated, else a wider band."""
        kind = self.kind
        if kind.network_mbps is not None:
            share = bands()["network_share"]["ethernet" if kind.fabric == "ethernet" else "fabric"]
            return float(kind.network_mbps * MEGABIT / kind.per_node * share[self.at])
        linked = kind.per_node >= WHOLE_NODE and self.speed.link_bytes_per_second
        band = "linked-eight" if linked and not kind.fabric else "other"
        network = bands()["network_bytes_per_second_per_gpu"]
        return float(network[band if kind.connected else "unknown"][self.at])

    def exposed(self, size_bytes: float, layout: Layout, hidden_by: float) -> float:
        """Seconds of a data-parallel collective that computing does not hide.

        Overlapped with the backward pass; at worst not at all. Tensor and context parallel ranks
        stand beside each other, data parallel ones across them.
        """
        ranks = layout.dp
        if ranks == 1:
            return 0.0
        together = max(self.kind.per_node // (layout.tp * layout.cp), 1)
        bandwidth = self.link(ranks, together)
        seconds = size_bytes * (ranks - 1) / ranks / bandwidth
        hidden = 0.0 if self.at == SLOW else hidden_by
        return max(seconds - hidden, 0.0)


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
    return ModelledHours(job, prepared.workload.run, prepared.work, trained, modelled, measured)
