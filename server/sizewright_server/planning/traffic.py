"""What the ranks of a training step send each other, and how long the step waits for it.

Volumes: Rajbhandari et al. 2020 (ZeRO), Shoeybi et al. 2019 and Korthikanti et al. 2022 (tensor and
sequence parallelism), Liu et al. 2023 (rings), Jacobs et al. 2023 (Ulysses), Lepikhin et al. 2021
(experts), Narayanan et al. 2021 and Qi et al. 2023 (pipelines).
"""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.exchanges import imbalance
from sizewright_server.estimation.work import Work
from sizewright_server.estimation.workload import Layout, Training
from sizewright_server.planning.machine_speed import FAST, LIKELY, SLOW, MachineSpeed, bands

#: Collectives of a block in each direction: after attention and after the feed-forward, or to the
#: experts and back from them.
EACH_WAY = 2
#: An all-reduce is a reduce-scatter and an all-gather.
ALL_REDUCE = 2
#: Of a step's backward pass, the share of its time: two passes of three.
BACKWARD = 2 / 3
#: What an earlier start of the weights' gradients leaves of a pipeline's bubble (ZB-H1).
ZERO_BUBBLE = 1 / 3


@dataclass(frozen=True, slots=True)
class Traffic:
    """The exchanges of one micro-batch of a layout on a kind of node.

    `parameters` of the model in all, `trained_share` of them trained. `compute` are the seconds of
    the micro-batch's products on a rank, `attention` those of its scores and weighted values.
    """

    work: Work
    run: Training
    layout: Layout
    machine: MachineSpeed
    parameters: int
    trained_share: float
    compute: float
    attention: float

    @property
    def width(self) -> int:
        """Bytes of an element that is sent."""
        return 4 if self.run.precision == "fp32" else 2

    @property
    def forwards(self) -> int:
        """How often the forward pass runs: again in the backward pass where it is recomputed."""
        return 2 if self.run.checkpointing == "full" else 1

    @property
    def tokens(self) -> float:
        """Positions of a micro-batch on a rank."""
        return self.run.micro_batch * self.work.positions / self.layout.cp

    def micro_batch(self) -> float:
        """Seconds a micro-batch waits, but for the gradients at the end of the step."""
        return (
            self._tensor_parallel()
            + self._context_parallel()
            + self._expert_parallel()
            + self._stages()
            + (self._sharded() if self.layout.zero >= 3 else 0.0)
        )

    def gradients(self) -> float:
        """Seconds a step waits for the gradients of replicas, and for weights that were sharded."""
        layout = self.layout
        if layout.zero >= 3:
            return self._replicas()
        ranks = layout.dp * layout.cp
        volume = ALL_REDUCE * self._held_bytes() * self.trained_share * (ranks - 1) / ranks
        seconds = self.machine.gathered(volume, ranks, self.machine.together(layout.tp))
        return self._beyond(seconds, self.compute * BACKWARD)

    @property
    def unbalanced(self) -> float:
        """Seconds a micro-batch waits for the rank of a ring that has most of its attention.

        Causal attention leaves the last of c ranks (2c - 1) / c of the mean, unless each takes an
        early and a late part of the tokens: `ring_balance` in `data/throughput.json`.
        """
        layout = self.layout
        if layout.cp == 1 or layout.context_method == "ulysses":
            return 0.0
        kind = "megatron" if layout.sharding == "megatron" else "other"
        balance = float(bands()["ring_balance"][kind][self.machine.at])
        return balance * self.attention * (layout.cp - 1) / layout.cp

    @property
    def bubble(self) -> float:
        """Time of a step relative to that of its micro-batches: stages wait for each other."""
        layout = self.layout
        idle = (layout.pp - 1) / layout.virtual_stages
        if layout.pipeline_schedule == "zero-bubble":
            idle *= ZERO_BUBBLE
        return 1 + idle / max(self.run.gradient_accumulation_steps, 1)

    def _tensor_parallel(self) -> float:
        """Two all-reduces a block each way, forward as often as it runs; none overlapped.

        With sequence parallelism they are reduce-scatters and all-gathers of the same volume.
        """
        ranks = self.layout.tp
        if ranks == 1:
            return 0.0
        volume = EACH_WAY * (self.forwards + 1) * self._hidden_bytes()
        shared = ALL_REDUCE * volume * (ranks - 1) / ranks
        return self.machine.gathered(shared, ranks, self.machine.together(1))

    def _context_parallel(self) -> float:
        """Keys and values go round a ring, behind attention where that takes longer; back with
        their gradients. Gathered at once they are waited for. By Ulysses every rank exchanges
        its tokens of all heads for all tokens of its heads, and the result back."""
        layout, ranks = self.layout, self.layout.cp
        if ranks == 1:
            return 0.0
        split = layout.pp * layout.tp
        together = self.machine.together(layout.tp)
        keys = self.tokens * self.work.kv_elements_per_token * self.width / split
        if layout.context_method == "ulysses":
            heads = EACH_WAY * self._hidden_bytes() / layout.tp
            volume = (self.forwards + 1) * (heads + keys) * (ranks - 1) / ranks
            return self.machine.exchanged(volume, ranks, together)
        volume = (self.forwards + 2) * keys * (ranks - 1)
        seconds = self.machine.gathered(volume, ranks, together)
        return seconds if layout.context_method == "all-gather" else self._behind(seconds)

    def _behind(self, seconds: float) -> float:
        """What a ring's exchange takes beyond the attention it runs beside."""
        return self._beyond(seconds, self.attention)

    def _expert_parallel(self) -> float:
        """Tokens go to their experts and back, each way; hidden at best, never as a rule."""
        layout, ranks = self.layout, self.layout.ep
        if ranks == 1:
            return 0.0
        of_experts = self._expert_split()
        sent = self.tokens * self.work.routed_elements * self.width / (layout.pp * layout.tp)
        rows = imbalance(layout)
        busiest = {FAST: rows.low, LIKELY: rows.best, SLOW: rows.high}[self.machine.at]
        volume = EACH_WAY * (self.forwards + 1) * sent * busiest * (ranks - 1) / ranks
        seconds = self.machine.exchanged(volume, ranks, self.machine.together(of_experts))
        return max(seconds - self.compute, 0.0) if self.machine.at == FAST else seconds

    def _stages(self) -> float:
        """A stage hands its output on and the gradient back, once for each of its chunks."""
        layout = self.layout
        if layout.pp == 1:
            return 0.0
        shared = layout.tp if layout.sequence_parallel else 1
        volume = EACH_WAY * layout.virtual_stages * self.tokens * self.work.hidden * self.width
        inside = layout.gpus <= self.machine.kind.per_node
        return self.machine.passed_on(volume / shared, inside=inside)

    def _sharded(self) -> float:
        """Weights are gathered for both passes, gradients of what is trained reduced."""
        layout = self.layout
        gathers = 1 if layout.keep_gathered else 2
        ranks = layout.shard_ranks
        volume = self._held_bytes() * (gathers + self.trained_share) * (ranks - 1) / ranks
        seconds = self.machine.gathered(volume, ranks, self.machine.together(layout.tp))
        return self._beyond(seconds, self.compute)

    def _replicas(self) -> float:
        """Shards of gradients are reduced over their replicas, where states have any."""
        layout = self.layout
        replicas = layout.dp * layout.cp // max(layout.shard_ranks, 1)
        if replicas <= 1:
            return 0.0
        shard = self._held_bytes() * self.trained_share / layout.shard_ranks
        volume = ALL_REDUCE * shard * (replicas - 1) / replicas
        stride = layout.tp * layout.shard_ranks
        seconds = self.machine.gathered(volume, replicas, self.machine.together(stride))
        return self._beyond(seconds, self.compute * BACKWARD)

    def _beyond(self, seconds: float, hidden_by: float) -> float:
        """What computing does not hide of a collective that runs beside it; at worst nothing."""
        return seconds if self.machine.at == SLOW else max(seconds - hidden_by, 0.0)

    def _held_bytes(self) -> float:
        """Weights of a rank where none were sharded: experts are split as they are shared out."""
        layout, work = self.layout, self.work
        experts = min(work.expert_parameters, self.parameters)
        split = layout.ep * self._expert_split()
        others = (self.parameters - experts) / layout.tp
        return (others + experts / split) * self.width / layout.pp

    def _expert_split(self) -> int:
        """Ranks over which one expert is split."""
        layout = self.layout
        usual = 1 if layout.ep > layout.dp * layout.cp else layout.tp
        return layout.megatron.expert_tensor_parallel_size or usual

    def _hidden_bytes(self) -> float:
        """Bytes of one activation of the hidden width in every block of a stage."""
        blocks = self.work.layers / self.layout.pp
        return self.tokens * blocks * self.work.hidden * self.width
