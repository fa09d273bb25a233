"""The estimator: a workload prepared once, then estimated under any number of layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.columns import GpuColumns, LayoutColumns
from sizewright_server.estimation.communicators import communicators
from sizewright_server.estimation.explain import explain
from sizewright_server.estimation.frontend import model_type_of, read_architecture
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.host import host_bounds, host_phases
from sizewright_server.estimation.host_states import HostStates, host_states
from sizewright_server.estimation.inference import InferenceGroup
from sizewright_server.estimation.kept import keep
from sizewright_server.estimation.layout import structure
from sizewright_server.estimation.layout_checks import check_layout
from sizewright_server.estimation.layouts import layouts_of_run, legal_sizes
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.parameter_counts import count_parameters
from sizewright_server.estimation.pipeline import positions
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.recurrence_checks import check_recurrence
from sizewright_server.estimation.run_checks import (
    check_adapter,
    check_modalities,
    check_run,
    check_size,
    check_trains,
)
from sizewright_server.estimation.runtime import DeviceOverhead
from sizewright_server.estimation.states import state_widths
from sizewright_server.estimation.tensor_tables import Tensors
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.work import Work, work_of
from sizewright_server.estimation.workload import Inference, Layout, Training, Workload
from sizewright_server.estimation.wrappers import is_lowered

__all__ = ["LayoutColumns", "PreparedWorkload", "UnsupportedWorkload", "Violation", "prepare"]

#: Explained estimates kept per workload, and layouts beyond which columns are forgotten.
KEPT_PER_WORKLOAD = 32
KEPT_LAYOUTS = 4096


class PreparedWorkload:
    """A workload whose model is known; see `prepare`."""

    def __init__(self, workload: Workload, architecture: Architecture) -> None:
        self.workload = workload
        self.model = architecture
        self.legal = legal_sizes(architecture, workload.run)
        self._known: tuple[dict[Layout, int], LayoutColumns | None] = {}, None
        self._estimates: dict[tuple[Layout, int, DeviceOverhead, bool], MemoryEstimate] = {}
        self._alone: dict[Layout, tuple[TrainingGroup | InferenceGroup, GpuColumns]] = {}
        first = self._single = self.group([Layout()])
        run = workload.run
        #: Layers that predict further tokens.
        self.further = run.multi_token_prediction_layers if isinstance(run, Training) else 0
        # As the run's code and adapter have it: tables that are shared may be parted.
        self._tensors = Tensors(first.segments, first.dims_of)
        self.parameter_count, trained = count_parameters(
            first.architecture, first.segments, first.dims_of, self._tensors, self.further
        )
        self.trainable_parameter_count = trained if isinstance(run, Training) else 0

    @cached_property
    def work(self) -> Work:
        """Operations and bytes of a sample."""
        run, group = self.workload.run, self._single
        tokens = run.seq_len if isinstance(run, Training) else run.input_tokens
        return work_of(
            group.segments,
            self._tensors,
            max(tokens, 1),
            causal=self.model.style.causal,
            further=self.further,
        )

    @property
    def architecture(self) -> str:
        """The model in one line."""
        sizes = self.model.sizes
        if not self.model.style.causal_masks:
            recurrent = sizes.recurrent
            return (
                f"{self.model.model_type}, {sizes.layers} layers, hidden {sizes.hidden}, "
                f"{recurrent.inner} channels of {recurrent.state} states, vocabulary {sizes.vocab}"
            )
        # A vision model's table has a row, its class token.
        reads = [f"{sizes.patches} positions"] if sizes.patches else []
        reads += [f"vocabulary {sizes.vocab}"] if sizes.vocab > 1 else []
        return (
            f"{self.model.model_type}, {sizes.layers} layers, hidden {sizes.hidden}, "
            f"{sizes.heads} heads ({sizes.kv_heads} key/value), feed-forward {sizes.ffn}, "
            f"{', '.join(reads)}"
        )

    def layouts_for(self, gpus: int, gpus_per_node: int) -> tuple[Layout, ...]:
        """The layouts to try on `gpus` GPUs; the explicit one alone where there is one."""
        return layouts_of_run(self.workload.run, self.legal, gpus, gpus_per_node)

    def group(self, layouts: Sequence[Layout]) -> TrainingGroup | InferenceGroup:
        """The schedule of layouts that share a library and the use of tensor parallelism."""
        run = self.workload.run
        if isinstance(run, Training):
            return TrainingGroup(self.model, run, layouts)
        return InferenceGroup(self.model, run, layouts)

    def columns(self, layouts: Sequence[Layout]) -> LayoutColumns:
        """Every layout's needs at once; a layout asked for again is not computed again."""
        # Kinds of node and node counts share layouts: eight GPUs are one node of eight or two of
        # four. Rows and columns are replaced together: another thread may be reading them.
        rows, known = self._known
        if len(rows) > KEPT_LAYOUTS:
            rows, known = {}, None
        missing = [layout for layout in dict.fromkeys(layouts) if layout not in rows]
        if missing or known is None:
            made = self._make_columns(missing)
            known = made if known is None else known.and_then(made)
            rows = {**rows, **{layout: at for at, layout in enumerate(missing, len(rows))}}
            self._known = rows, known
        return known.take([rows[layout] for layout in layouts])

    def _make_columns(self, layouts: Sequence[Layout]) -> LayoutColumns:
        count = len(layouts)
        gpu = np.zeros((3, count), dtype=np.int64)
        for members in _groups(layouts):
            made = self._scheduled([layouts[i] for i in members])[1]
            gpu[:, members] = made.needs(len(members))
        host = self._host(layouts)
        return LayoutColumns(
            *gpu,
            *host,
            *np.array([self.collectives(layout) for layout in layouts], dtype=np.int64).T,
        )

    def estimate(
        self,
        layout: Layout,
        ranks_per_node: int,
        overhead: DeviceOverhead,
        *,
        replay: bool = False,
    ) -> MemoryEstimate:
        """The whole explained tree for one layout.

        `replay` runs the caching allocator's replay for the reserved reading's best value.
        """
        key = (layout, ranks_per_node, overhead, replay)
        made = self._estimates.get(key)
        if made is None:
            group, columns = self._scheduled([layout])
            made = explain(self, layout, ranks_per_node, overhead, columns, group, replay=replay)
            keep(self._estimates, key, made, KEPT_PER_WORKLOAD)
        return made

    def _scheduled(
        self, layouts: Sequence[Layout]
    ) -> tuple[TrainingGroup | InferenceGroup, GpuColumns]:
        """The schedule of layouts and its peaks; an explicit layout is searched and then shown."""
        kept = self._alone.get(layouts[0]) if len(layouts) == 1 else None
        if kept is not None:
            return kept
        made = self._fullest(layouts)
        if len(layouts) == 1:
            keep(self._alone, layouts[0], made, KEPT_PER_WORKLOAD)
        return made

    def _fullest(
        self, layouts: Sequence[Layout]
    ) -> tuple[TrainingGroup | InferenceGroup, GpuColumns]:
        """The schedule, showing the first layout's fullest stage, and the peaks of all."""
        stages = positions(max(layout.pp for layout in layouts))
        run = self.workload.run
        if isinstance(run, Inference) or len(stages) == 1:
            group = self.group(layouts)
            return group, gpu_columns(group)
        pipeline = TrainingGroup(self.model, run, layouts, stages)
        columns = gpu_columns(pipeline)
        fullest = int(columns.reserved_best[:: len(layouts)].argmax())
        return pipeline.showing(fullest * len(layouts)), columns

    def collectives(self, layout: Layout) -> tuple[int, int]:
        """NCCL communicators of a rank, and the size of the largest."""
        sizes = (layout.dp * layout.cp, layout.tp, layout.pp, layout.ep)
        return communicators(layout, self.workload.run), max(sizes)

    def checkpoint_bytes(self) -> int:
        """Bytes of the weights file in the run's stored type."""
        run = self.workload.run
        width = 4 if _precision(run) in ("fp32",) else 2
        return self.parameter_count * width

    def host_states(self, layout: Layout) -> HostStates:
        """What of the model's states the host sees under a layout."""
        counts = self.parameter_count, self.trainable_parameter_count
        found = host_states(self.workload, layout, self.checkpoint_bytes(), *counts)
        return replace(found, activations=self._offloaded_checkpoints(layout))

    def _offloaded_checkpoints(self, layout: Layout) -> int:
        """Bytes of block inputs that a rank's checkpointing puts into host memory."""
        run = self.workload.run
        offloads = isinstance(run, Training) and (
            run.checkpoint_policy.offload or layout.offload_activations
        )
        if not isinstance(run, Training) or not offloads:
            return 0
        if layout.sharding == "megatron" and run.checkpointing != "full":
            group = self._scheduled([layout])[0]
            return group.moved_bytes() if isinstance(group, TrainingGroup) else 0
        types = state_widths(run, layout.sharding).types
        width = types.weight if types.autocast else types.compute
        blocks = -(-self.model.sizes.layers // (run.checkpoint_policy.every_layers * layout.pp))
        return blocks * run.rows * (run.seq_len // layout.cp) * self.model.sizes.hidden * width

    def _host(self, layouts: Sequence[Layout]) -> Column:
        """Each layout's highest per-rank and per-node needs over the host's phases: six rows."""
        made: dict[tuple[object, ...], list[int]] = {}
        columns = []
        for layout in layouts:
            # All that the host's states depend on.
            shards, ways = layout.shard_ranks if layout.zero else 1, layout.tp * layout.pp
            kept = layout.sharding, layout.offload, layout.offload_share
            key: tuple[object, ...] = (shards * ways, shards > 1, *kept)
            if self._offloaded_checkpoints(layout):
                key = (*key, ways, layout.pp, layout.cp)
            if key not in made:
                states = self.host_states(layout)
                made[key] = host_bounds(host_phases(self.workload, states))
            columns.append(made[key])
        return np.array(columns, dtype=np.int64).reshape(len(layouts), 6).T


def prepare(workload: Workload) -> PreparedWorkload:
    """Reads the model and checks the run against it.

    Raises UnsupportedWorkload with every reason: an unknown model_type, missing or contradictory
    sizes, a layout the model cannot take, or sizes whose memory no machine could address.
    """
    field = "workload.model.preset" if workload.model.preset else "workload.model.hf_config"
    run = workload.run
    alone = is_lowered(model_type_of(workload.model.config), isinstance(run, Training))
    architecture = read_architecture(workload.model, field, run.image_size, text_alone=alone)
    _check(architecture, run)
    prepared = PreparedWorkload(workload, architecture)
    check_trains(architecture, run, prepared.trainable_parameter_count)
    return prepared


def _check(architecture: Architecture, run: Training | Inference) -> None:
    """Raises UnsupportedWorkload with what all checks of a run find wrong."""
    wrong: list[Violation] = []
    for check in (
        _check_stated_layout,
        check_size,
        check_modalities,
        check_run,
        check_adapter,
        check_recurrence,
    ):
        try:
            check(architecture, run)
        except UnsupportedWorkload as refusal:
            wrong += refusal.violations
    if wrong:
        raise UnsupportedWorkload(*wrong)


def _check_stated_layout(architecture: Architecture, run: Training | Inference) -> None:
    if run.layout is not None:
        kind = "training" if isinstance(run, Training) else "inference"
        check_layout(architecture, run.layout, f"workload.{kind}.parallelism.explicit", run)


def _groups(layouts: Sequence[Layout]) -> list[list[int]]:
    """Indices of layouts that one schedule can hold."""
    groups: dict[Layout, list[int]] = {}
    for index, layout in enumerate(layouts):
        groups.setdefault(structure(layout), []).append(index)
    return list(groups.values())


def _precision(run: Training | Inference) -> str:
    return run.precision if isinstance(run, Training) else run.weight_dtype
