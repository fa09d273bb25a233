"""The numbers behind what is resident, as an explanation shows them."""

from __future__ import annotations

from functools import cached_property

from sizewright_server.estimation.exchanges import imbalance
from sizewright_server.estimation.ops import INT64
from sizewright_server.estimation.optimizers import OptimizerKind, optimizers
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.states import HALF
from sizewright_server.estimation.training_resident import ResidentGroup


class NumberedGroup(ResidentGroup):
    """A group that says in numbers what its shown column holds throughout."""

    def resident_numbers(self, parameters: int, trained: int) -> list[tuple[str, int, str]]:
        """Name, bytes and numbers of what is there throughout, for the shown column."""
        widths = self.widths
        kind = optimizers()[self.training.optimizer.name]
        resident, at = self.resident, self.shown
        batch = f"2 x {self.training.rows} x {self.training.seq_len} x {INT64} B"
        return [
            (
                "weights",
                int(resident.weights[at]),
                self._weight_numbers(parameters, trained),
            ),
            ("optimizer-state", int(resident.optimizer[at]), self._state_numbers(kind)),
            ("gradients-kept", int(resident.gradients_kept[at]), self._terms(widths.gradient, 2)),
            ("reduction-buckets", int(resident.buckets[at]), f"{int(resident.buckets[at]):,} B"),
            ("persisted-parameters", int(resident.persisted[at]), "small tensors, whole"),
            (
                "fp8-weight-copies",
                int(resident.narrow_weights[at]),
                "2 x 1 B for every element of a block's matrices",
            ),
            (
                "weight-gradient-stand-ins",
                int(resident.stand_ins[at]),
                f"{HALF} B for every element of each distinct weight",
            ),
            ("inputs", int(resident.inputs[at]), batch),
            ("reference-model", int(resident.reference[at]), f"{parameters:,} parameters"),
            ("moving-average", int(resident.moving_average[at]), "one copy of what trains"),
            ("waiting-micro-batches", int(resident.waiting[at]), self._flight_numbers()),
            (
                "expert-imbalance",
                int(resident.imbalance[at]),
                f"busiest rank {imbalance(self.layout).best:g} x the mean",
            ),
            (
                "engine-workspaces",
                int(resident.workspaces[at]),
                f"{int(resident.workspaces[at]):,} B",
            ),
        ]

    @cached_property
    def _trained_on_rank(self) -> tuple[int, int]:
        """Elements that the shown column's rank trains: of experts, and others."""
        return self.states.trained_on_rank(self.shown)

    def _terms(self, itemsize: int, stage: int) -> str:
        """What the rank trains, by its bytes and the ranks that share it: experts by themselves,
        since other ranks hold the same ones."""
        at = self.shown
        experts, others = self._trained_on_rank
        found = [
            (f"{others:,}", int(self.parallel.ways(stage)[at])),
            (f"{experts:,} of experts", int(self.parallel.ways(stage, expert=True)[at])),
        ]
        split = self.tp[at] * self.parallel.pp[at] * self.parallel.ep[at] > 1
        on_rank = " on this rank" if split else ""
        return " + ".join(
            f"{text}{on_rank} x {itemsize} B" + (f" over {ways}" if ways > 1 else "")
            for text, ways in found
            if not text.startswith("0")
        )

    def _weight_numbers(self, parameters: int, trained: int) -> str:
        """Frozen weights in their format, and what trains beside them."""
        widths, base = self.widths, self.training.base_weights
        if self.training.adapter is None:
            return self._terms(widths.stored, 3)
        frozen, at = f"{parameters - trained:,} frozen", self.shown
        if widths.types.quantized is not None and base is not None:
            frozen += f", linear layers in {base.format}, the rest"
        split = int(self.parallel.ways(3)[at] * self.tp[at] * self.parallel.pp[at])
        adapter = f"{trained:,} trained x {widths.trained} B"
        return f"({frozen} x {widths.stored} B + {adapter}) over {split}"

    def _state_numbers(self, kind: OptimizerKind) -> str:
        """States of whole tensors by their bytes; others by what is kept of a tensor."""
        name, widths = self.training.optimizer.name, self.widths
        if kind.paged:
            return f"{name}: in unified memory, not counted on the GPU"
        if kind.whole_states is None:
            kinds = ", ".join(f"{rule.count} x {rule.of}" for rule in kind.states)
            trained = sum(self._trained_on_rank)
            ways = int(self.parallel.ways(1)[self.shown])
            return f"{trained:,} trained on this rank, {name} keeps {kinds} over {ways}"
        item = kind.states[0].bytes or widths.state if kind.states else widths.state
        return self._terms(kind.whole_states * item + widths.master, 1)

    def _flight_numbers(self) -> str:
        at = self.shown
        chunks, own = int(self._chunks[at]), int(self.parallel.virtual[at])
        stages, micro = int(self.parallel.pp[at]), self.training.gradient_accumulation_steps
        stage = int(self.stage[at])
        rule = f"min({stages} - {stage}, {micro})"
        if self.layout.pipeline_schedule == "gpipe":
            rule = f"{micro} micro-batches"
        elif self.layout.pipeline_schedule == "zero-bubble":
            rule = f"min({stages} x {own}, {micro} x {own})"
        elif own > 1:
            warm_up = f"2 ({stages} - {stage} - 1) + ({own} - 1) {stages} + 1"
            rule = f"min({warm_up}, {micro} x {own})"
        waiting = max(chunks - own, 0)
        each = int(self._saved_by_blocks()[at]) // own
        return (
            f"{chunks} chunks in flight = {rule}; {waiting} wait beside the {own} of a whole pass,"
            f" {each:,} B saved by each"
        )

    def _saved_by_blocks(self) -> Column:
        """What a micro-batch saves in all blocks of the rank."""
        total: Column = self.nothing
        for count, segment, left in self._saved_forward():
            if segment.repeats:
                total = total + count * left
        return total
