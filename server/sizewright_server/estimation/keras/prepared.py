"""A Keras workload as the planner sees it: replicas on the GPUs of its nodes, or one process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.parts import Moment, heaviest, total
from sizewright_server.estimation.columns import LayoutColumns
from sizewright_server.estimation.keras.cpu import (
    data_parts,
    estimate_cpu,
    pipeline_parts,
    process_parts,
)
from sizewright_server.estimation.keras.gpu import (
    gpu_pool,
    grown_bytes,
    replica_memory,
    reserved,
)
from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.layout import Layout
from sizewright_server.estimation.memory import (
    ByteRange,
    MemoryEstimate,
    Notice,
    Part,
    Phase,
    PoolEstimate,
)
from sizewright_server.estimation.runtime import DeviceOverhead

GIB = 2**30
#: One process drives a node's GPUs, so a rank adds nothing to it.
_NO_RANK = (0, 0, 0)


class PreparedKeras:
    """A Keras model whose graph is read; the sibling of PreparedWorkload."""

    def __init__(self, workload: KerasWorkload) -> None:
        self.workload = workload

    @property
    def architecture(self) -> str:
        """The model in one line."""
        return self.workload.architecture

    def layouts_for(self, gpus: int, gpus_per_node: int) -> tuple[Layout, ...]:
        """A replica on each GPU; on the CPU the one process of a single node."""
        if not self.workload.on_gpu:
            return (Layout(),) if gpus == gpus_per_node else ()
        asked = self.workload.replicas
        return (Layout(dp=gpus),) if asked in (0, gpus) else ()

    def columns(self, layouts: Sequence[Layout]) -> LayoutColumns:
        """Each layout's needs: one process a node drives all of its GPUs."""
        host = self._host_pool().peak
        gpu = [self._reserved(layout.dp) for layout in layouts]
        rows = [
            (*_bounds(size), *_NO_RANK, *_bounds(host), int(layout.dp > 1), layout.dp)
            for size, layout in zip(gpu, layouts, strict=True)
        ]
        return LayoutColumns(*np.array(rows, dtype=np.int64).reshape(len(layouts), 11).T)

    def _reserved(self, replicas: int) -> ByteRange:
        if not self.workload.on_gpu:
            return ByteRange(0, 0, 0)
        return reserved(self.workload, replica_memory(self.workload, replicas).peak)

    def estimate(
        self,
        layout: Layout,
        ranks_per_node: int,
        overhead: DeviceOverhead,
        *,
        replay: bool = False,
    ) -> MemoryEstimate:
        """The whole explained tree."""
        if not self.workload.on_gpu:
            return estimate_cpu(self.workload)
        net = self.workload.network
        pool = gpu_pool(self.workload, layout.dp, overhead)
        return MemoryEstimate(
            pools=(pool, self._host_pool()),
            layout=layout,
            ranks_per_node=ranks_per_node,
            parameter_count=net.parameters,
            trainable_parameter_count=net.trainable if self.workload.training else 0,
            architecture=self.architecture,
            notices=self._notices(pool),
        )

    def _host_pool(self) -> PoolEstimate:
        """The process that drives a node's GPUs: imports, CUDA libraries, data on its way."""
        if not self.workload.on_gpu:
            return estimate_cpu(self.workload).pool("host")
        libraries = constant("process", "cuda_libraries")
        held: tuple[Part, ...] = (
            *process_parts(self.workload),
            libraries.part("cuda-libraries", "CUDA, cuDNN, cuBLAS and their context"),
            *data_parts(self.workload),
        )
        copied = pipeline_parts(self.workload) if self.workload.backend == "tensorflow" else ()
        moments = (Moment("load", held), Moment("steady", (*held, *copied)))
        phases = tuple(Phase(each.name, total(each.parts), each.parts) for each in moments)
        peak = heaviest(moments)
        return PoolEstimate("host", "a node", phases, peak.name, total(peak.parts))

    def _notices(self, pool: PoolEstimate) -> tuple[Notice, ...]:
        if self.workload.backend != "tensorflow" or pool.gpu is None:
            return ()
        mapped = grown_bytes(pool.gpu.allocated.best_bytes) / GIB
        words = (
            "TensorFlow takes nearly all of a GPU when it starts, whatever the model needs; with "
            f"set_memory_growth(True) it maps {mapped:.2f} GiB in regions that double, where the "
            "GPU has room. The estimate is what it needs to run."
        )
        return (Notice("tensorflow-takes-all-memory", words),)


def _bounds(size: ByteRange) -> tuple[int, int, int]:
    return size.low_bytes, size.best_bytes, size.high_bytes
