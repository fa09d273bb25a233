"""A serving workload prepared once, then estimated under any number of layouts and devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress

import numpy as np

from sizewright_server.estimation.columns import LayoutColumns
from sizewright_server.estimation.kept import keep
from sizewright_server.estimation.memory import (
    ByteRange,
    GpuReadings,
    MemoryEstimate,
    Phase,
    PoolEstimate,
)
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.runtime import DeviceOverhead
from sizewright_server.estimation.serving import host, modules, pooled
from sizewright_server.estimation.serving.devices import alone, device_class
from sizewright_server.estimation.serving.huggingface import HuggingFace
from sizewright_server.estimation.serving.layouts import (
    legal_tensor_parallel,
    refuse_contradictions,
    serving_layouts,
    shares_context,
)
from sizewright_server.estimation.serving.model import ServedModel
from sizewright_server.estimation.serving.notices import notices_of
from sizewright_server.estimation.serving.quantisation import (
    Scheme,
    scheme_of,
    scheme_of_config,
    with_group,
)
from sizewright_server.estimation.serving.reading import read_served_model
from sizewright_server.estimation.serving.rules import rules_of
from sizewright_server.estimation.serving.run import (
    ANY_DEVICE,
    POOLED,
    ServingDevice,
    ServingWorkload,
)
from sizewright_server.estimation.serving.stages import ITEMSIZE, Setup, Tables
from sizewright_server.estimation.serving.texts import part, remainder, total
from sizewright_server.estimation.serving.view import ServingView
from sizewright_server.estimation.workload import Layout

BOUNDS = ("low_bytes", "best_bytes", "high_bytes")

#: Sizes kept of a workload, by layout and class of GPU.
KEPT = 1024


class PreparedServing:
    """A served model whose tensors are known; the sibling of PreparedWorkload."""

    def __init__(self, workload: ServingWorkload) -> None:
        self.workload, run = workload, workload.run
        self.model = _model(workload)
        draft: ServedModel | None = None
        if run.draft is not None:
            field = "workload.inference.serving.speculative.draft"
            draft = read_served_model(run.draft.config, field)
        scheme = _scheme(workload, self.model)
        self.tables = Tables(self.model, scheme, ITEMSIZE[run.compute_type], draft)
        legal, ranks = legal_tensor_parallel(self.model), run.decode_context_parallel
        refuse_contradictions(workload, self.model, legal)
        shared = (ranks == 1 or shares_context(self.model, tp, ranks) for tp in legal)
        self.legal_tp = tuple(compress(legal, shared))
        self._columns: dict[tuple[Layout, ...], LayoutColumns] = {}
        self._sizes: dict[tuple[Layout, ServingDevice], ByteRange] = {}
        self._reserved: dict[tuple[tuple[Layout, ...], ServingDevice], tuple[Column, ...]] = {}

    @property
    def architecture(self) -> str:
        """The model in one line."""
        model = self.model
        experts = f", {model.experts.count} experts" if model.experts else ""
        return (
            f"{model.model_type}, {model.layer_words}, hidden {model.hidden}, "
            f"{model.heads} heads ({model.kv_heads} key/value){experts}, vocabulary {model.vocab}"
        )

    def setup(self, layout: Layout) -> Setup:
        """The model with its ranks."""
        return Setup(self.tables, self.workload.run, layout)

    def layouts_for(self, gpus: int, gpus_per_node: int) -> tuple[Layout, ...]:
        """Layouts over the GPUs, the widest tensor parallelism first; the explicit one alone."""
        explicit = self.workload.run.layout
        if explicit is not None:
            wanted = explicit
            if explicit.dp == 0:
                per = explicit.tp * explicit.pp
                wanted = Layout(dp=max(1, gpus // per), tp=explicit.tp, pp=explicit.pp)
            fits = wanted.gpus == gpus and wanted.tp <= gpus_per_node
            return (wanted,) if fits else ()
        return serving_layouts(self.legal_tp, len(self.model.order), gpus, gpus_per_node)

    def columns(self, layouts: Sequence[Layout]) -> LayoutColumns:
        """The least each layout needs: bytes per GPU and per node."""
        key = tuple(layouts)
        made = self._columns.get(key)
        if made is None:
            made = self._make_columns(key)
            keep(self._columns, key, made, KEPT)
        return made

    def _make_columns(self, layouts: Sequence[Layout]) -> LayoutColumns:
        count = len(layouts)
        gpu = np.zeros((3, count), dtype=np.int64)
        rank = np.zeros((3, count), dtype=np.int64)
        node = np.zeros((3, count), dtype=np.int64)
        for i, layout in enumerate(layouts):
            size = self._least(layout, ANY_DEVICE)
            made = self._host_phases(layout)
            for row, bound in enumerate(BOUNDS):
                gpu[row, i] = getattr(size, bound)
                rank[row, i], node[row, i] = host.highest(made, bound)
        # Communicators are in the figures of engines with a pool, and apart from modules' own.
        apart = self.workload.run.engine not in POOLED
        talks = np.array([int(apart and layout.tp > 1) for layout in layouts], dtype=np.int64)
        group = talks * np.array([layout.tp for layout in layouts], dtype=np.int64)
        columns = [*gpu, *rank, *node, talks, group]
        return LayoutColumns(*columns)

    def reserved_on(self, layouts: Sequence[Layout], device: ServingDevice) -> tuple[Column, ...]:
        """Low, best and high of the least each layout needs on GPUs of a class (`device_class`)."""
        key = (tuple(layouts), device)
        made = self._reserved.get(key)
        if made is None:
            sizes = [self._least(layout, device) for layout in layouts]
            made = tuple(
                np.array([getattr(size, bound) for size in sizes], dtype=np.int64)
                for bound in BOUNDS
            )
            keep(self._reserved, key, made, KEPT)
        return made

    def _least(self, layout: Layout, device: ServingDevice) -> ByteRange:
        """`least_reserved`, once for all GPUs that differ in nothing the layout uses."""
        key = (layout, device if layout.tp > 1 else alone(device))
        made = self._sizes.get(key)
        if made is None:
            made = self.least_reserved(*key)
            keep(self._sizes, key, made, KEPT)
        return made

    def least_reserved(self, layout: Layout, device: ServingDevice = ANY_DEVICE) -> ByteRange:
        """The least a GPU of a class needs beside its context and library workspaces.

        Communicators are in the engine's own figures: at start, and outside PyTorch.
        """
        setup = self.setup(layout)
        if self.workload.run.engine in POOLED:
            engine = pooled.engine_of(setup, device)
            index, size = pooled.least(engine)
            alone = rules_of(self.workload.run.engine, self.workload.run.version)
            start = engine.stages[index].start
            first = alone.rule("start-used-one").size()
            beyond = ByteRange(*(max(0, getattr(start, b) - getattr(first, b)) for b in BOUNDS))
            return size + beyond
        hugging = HuggingFace(setup, device)
        return modules.beside_workspaces(hugging, modules.worst_stage(hugging))

    def estimate(
        self,
        layout: Layout,
        ranks_per_node: int,
        overhead: DeviceOverhead,
        *,
        replay: bool = False,
        device: ServingDevice | None = None,
    ) -> MemoryEstimate:
        """The explained tree, and the engine's view of `device` where one is given."""
        setup = self.setup(layout)
        known = device or ANY_DEVICE
        if self.workload.run.engine in POOLED:
            pool, seen = self._pooled(setup, known, overhead)
        else:
            pool, seen = self._modules(setup, known, overhead)
        ranks = min(ranks_per_node, layout.gpus)
        parameters = self.model.parameters
        return MemoryEstimate(
            pools=(pool, self._host_pool(layout, ranks)),
            layout=layout,
            ranks_per_node=ranks,
            parameter_count=parameters,
            trainable_parameter_count=0,
            architecture=self.architecture,
            notices=notices_of(self.workload, self.model, setup, known, seen),
            serving=seen,
        )

    def _pooled(
        self, setup: Setup, device: ServingDevice, overhead: DeviceOverhead
    ) -> tuple[PoolEstimate, ServingView]:
        """The GPU pool of an engine with a pool: the least for what is asked.

        The pool is what plans are made with: that of the device's class, whatever its size; the
        view beside it is of the device itself.
        """
        like = device_class(device, setup.run.engine)
        engine = pooled.engine_of(setup, like)
        index, size = pooled.least(engine)
        stage = engine.stages[index]
        cache = pooled.needed_bytes(engine, stage)
        allocated = stage.weights + stage.activations + ByteRange(cache, cache, cache)
        device_use = self.least_reserved(setup.layout, like) + overhead.total(0, 1)
        seen = pooled.view(pooled.engine_of(setup, device), self.workload.run.version_words)
        made = self._balanced(pooled.phases(engine), device_use)
        reserved = ByteRange(*(max(getattr(allocated, b), getattr(size, b)) for b in BOUNDS))
        return PoolEstimate(
            pool="gpu",
            scope=_scope(setup.layout, stage.index),
            phases=made,
            peak_phase="serving",
            peak=device_use,
            gpu=GpuReadings(allocated, reserved, device_use),
        ), seen

    @staticmethod
    def _balanced(phases: tuple[Phase, ...], peak: ByteRange) -> tuple[Phase, ...]:
        """The phases, the last one's start being what makes it add up to the peak."""
        last = phases[-1]
        rest = [p for p in last.parts if p.name != "engine-start"]
        held = ByteRange(*(sum(getattr(p.size, b) for p in rest) for b in BOUNDS))
        start = next(p for p in last.parts if p.name == "engine-start")
        size = remainder(peak, held)
        parts = (replace(start, size=size, numbers=f"{size.best_bytes:,} B"), *rest)
        return (*phases[:-1], Phase(last.name, peak, parts))

    def _modules(
        self, setup: Setup, device: ServingDevice, overhead: DeviceOverhead
    ) -> tuple[PoolEstimate, ServingView]:
        """The GPU pool of transformers and PyTorch, as plans see it; the view is the device's."""
        engine = HuggingFace(setup, device_class(device, setup.run.engine))
        stage = modules.worst_stage(engine)
        allocated, reserved = modules.allocated(engine, stage), modules.reserved(engine, stage)
        beside = modules.beside_workspaces(engine, stage)
        context = overhead.total(int(setup.layout.tp > 1), setup.layout.tp)
        seen = modules.view(setup, device, self.workload.run.version_words, context)
        runtime = overhead.parts(int(setup.layout.tp > 1), setup.layout.tp)
        found = modules.stage_phases(engine, stage)
        highest = max(found, key=lambda phase: phase.total.best_bytes)
        phases = []
        for phase in found:
            parts = tuple(p for p in phase.parts if p.name != "library-workspaces")
            if phase is highest:
                parts = (*parts, part("allocator-slack", remainder(beside, total(parts))))
            phases.append(Phase(phase.name, total((*parts, *runtime)), (*parts, *runtime)))
        return PoolEstimate(
            pool="gpu",
            scope=_scope(setup.layout, stage),
            phases=tuple(phases),
            peak_phase=highest.name,
            peak=beside + context,
            gpu=GpuReadings(allocated, reserved, beside + context),
        ), seen

    def _host_phases(self, layout: Layout) -> tuple[host.HostPhase, ...]:
        setup = self.setup(layout)
        held = sum(n for _, n in setup.weight_parts(0))
        swap = self.workload.run.swap_bytes
        if swap is None and self.workload.run.engine == "vllm":
            rules = rules_of("vllm", self.workload.run.version)
            swap = rules.rule("swap-space").size().best_bytes
        conditions = self.workload.host
        return host.phases(self.workload.run, conditions, layout, held, swap or 0)

    def _host_pool(self, layout: Layout, ranks: int) -> PoolEstimate:
        made = [host.phase_of(*phase, ranks) for phase in self._host_phases(layout)]
        worst = max(made, key=lambda phase: phase.total.best_bytes)
        peak = ByteRange(*(max(getattr(p.total, b) for p in made) for b in BOUNDS))
        return PoolEstimate("host", "one node", tuple(made), worst.name, peak)


def _model(workload: ServingWorkload) -> ServedModel:
    field = "preset" if workload.model.preset else "hf_config"
    return read_served_model(workload.model.config, f"workload.model.{field}")


def _scheme(workload: ServingWorkload, model: ServedModel) -> Scheme:
    """The stored type: the run's; a file's own quantisation says what the word leaves open."""
    run = workload.run
    scheme = scheme_of(run.weight_type)
    stated = scheme_of_config(dict(model.quantisation))
    if stated is not None and stated.name == scheme.name:
        scheme = stated
    return with_group(scheme, run.group_size) if run.group_size else scheme


def _scope(layout: Layout, stage: int) -> str:
    return "every rank" if layout.pp == 1 else f"each rank of stage {stage + 1} of {layout.pp}"
