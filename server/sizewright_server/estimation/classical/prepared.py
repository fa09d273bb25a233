"""A fit as the planner sees it: one process on one node, host memory alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np

from sizewright_server.estimation.classical.boosting_gpu import device_parts, gpu_pool
from sizewright_server.estimation.classical.estimate import estimate_fit
from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.parts import total
from sizewright_server.estimation.estimator import LayoutColumns
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.runtime import DeviceOverhead
from sizewright_server.estimation.workload import HostConditions, Layout


@dataclass(frozen=True, slots=True)
class FitWorkload:
    """A classical estimator to be fitted; it uses no GPU."""

    job: FitJob
    name: str = ""
    host: HostConditions = field(default_factory=HostConditions)
    #: The release of CUDA it runs with, such as "12.4"; empty where none is stated.
    cuda: str = ""

    @property
    def on_gpu(self) -> bool:
        """Whether GPUs are used."""
        return self.job.on_gpu


W = TypeVar("W")


class PreparedHost(Generic[W]):
    """A workload of one process on one node, whose estimate is known: host memory alone."""

    def __init__(self, workload: W, estimate: MemoryEstimate) -> None:
        self.workload = workload
        self._estimate = estimate
        self._nodes = 1

    @property
    def architecture(self) -> str:
        """The estimator in one line."""
        return self._estimate.architecture

    def layouts_for(self, gpus: int, gpus_per_node: int) -> tuple[Layout, ...]:
        """The one layout there is: a process on a single node."""
        return (Layout(dp=self._nodes),) if gpus == gpus_per_node * self._nodes else ()

    def columns(self, layouts: Sequence[Layout]) -> LayoutColumns:
        """The host's needs of each layout, which are all the same; nothing on a GPU."""
        peak = self._estimate.pool("host").peak
        count = len(layouts)
        nothing = _column(0, count)
        return LayoutColumns(
            gpu_reserved_low_bytes=nothing,
            gpu_reserved_best_bytes=nothing,
            gpu_reserved_high_bytes=nothing,
            host_rank_low_bytes=nothing,
            host_rank_best_bytes=nothing,
            host_rank_high_bytes=nothing,
            host_node_low_bytes=_column(peak.low_bytes, count),
            host_node_best_bytes=_column(peak.best_bytes, count),
            host_node_high_bytes=_column(peak.high_bytes, count),
            communicator_count=nothing,
            largest_group=nothing,
        )

    def estimate(
        self,
        layout: Layout,
        ranks_per_node: int,
        overhead: DeviceOverhead,
        *,
        replay: bool = False,
    ) -> MemoryEstimate:
        """The whole explained tree; layout and device change nothing in it."""
        return self._estimate


class PreparedFit(PreparedHost[FitWorkload]):
    """A fit whose estimate is known; the sibling of PreparedWorkload."""

    def __init__(self, workload: FitWorkload) -> None:
        super().__init__(workload, estimate_fit(workload.job))
        pool = workload.job.pool
        self._nodes = pool.nodes if pool is not None else 1

    def layouts_for(self, gpus: int, gpus_per_node: int) -> tuple[Layout, ...]:
        """One GPU where there is one; else the nodes of the fit."""
        if self.workload.on_gpu:
            return (Layout(),) if gpus == 1 else ()
        return super().layouts_for(gpus, gpus_per_node)

    def columns(self, layouts: Sequence[Layout]) -> LayoutColumns:
        """The host's needs, and a GPU's where trees grow on one."""
        made = super().columns(layouts)
        if not self.workload.on_gpu:
            return made
        size = total(device_parts(self.workload.job))
        count = len(layouts)
        return replace(
            made,
            gpu_reserved_low_bytes=_column(size.low_bytes, count),
            gpu_reserved_best_bytes=_column(size.best_bytes, count),
            gpu_reserved_high_bytes=_column(size.high_bytes, count),
        )

    def estimate(
        self,
        layout: Layout,
        ranks_per_node: int,
        overhead: DeviceOverhead,
        *,
        replay: bool = False,
    ) -> MemoryEstimate:
        """The whole explained tree, the GPU's pool first where there is one."""
        if not self.workload.on_gpu:
            return replace(self._estimate, layout=layout)
        pools = (gpu_pool(self.workload.job, overhead), *self._estimate.pools)
        return replace(self._estimate, pools=pools)


def _column(value: int, count: int) -> Column:
    return np.full(count, value, dtype=np.int64)
