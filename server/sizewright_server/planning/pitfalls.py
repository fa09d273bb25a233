"""The classic pitfalls of sizing, each said only when it is true of this workload on this plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.estimation.classical.prepared import FitWorkload
from sizewright_server.estimation.memory import Notice
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.workload import Layout, Training, Workload
from sizewright_server.planning.plan import PoolFit

GIB = 2**30
#: Below this share of GPU memory at the high estimate a larger batch would be free.
MOSTLY_FREE = 0.5
#: Above this share the estimate deserves a look while the job runs.
NEARLY_FULL = 0.95
#: Loader processes on a node that nobody means to start.
MANY_PROCESSES = 32
#: A table whose peak is so many times its own size.
MANY_COPIES = 4


@dataclass(frozen=True, slots=True)
class Situation:
    """A workload on a machine under a layout."""

    workload: AnyWorkload
    target: InstanceType | Machine
    layout: Layout
    nodes: int
    pools: tuple[PoolFit, ...]

    @property
    def ranks_per_node(self) -> int:
        """Processes of the job on a node."""
        return max(self.layout.gpus // self.nodes, 1)

    def pool(self, name: str) -> PoolFit | None:
        """A pool by name."""
        return next((pool for pool in self.pools if pool.pool == name), None)


def pitfalls(situation: Situation) -> tuple[Notice, ...]:
    """What is true of a plan and easily overlooked."""
    return tuple(notice for rule in RULES for notice in rule(situation))


def _batch_that_wastes(it: Situation) -> Iterator[Notice]:
    gpu = it.pool("gpu")
    if gpu is None or not isinstance(it.workload, Workload):
        return
    used = gpu.peak.high_bytes / max(gpu.usable_bytes, 1)
    if used < MOSTLY_FREE:
        free = (gpu.usable_bytes - gpu.peak.high_bytes) / GIB
        words = f"{free:.0f} GiB of each GPU stay free; a larger batch would use them for speed."
        yield Notice("batch-wastes-memory", words)


def _loader_copies(it: Situation) -> Iterator[Notice]:
    if not isinstance(it.workload, Workload) or it.workload.dataset is None:
        return
    workers = it.workload.host.loader_workers
    if it.workload.dataset.container == "in-memory" and workers:
        copies = it.ranks_per_node * (workers + 1)
        words = (
            f"The dataset is in memory in each of {it.ranks_per_node} ranks and their {workers} "
            f"loader workers; Python objects are copied as they are read, up to {copies} times on "
            "a node. Watch it with `sizewright observe`."
        )
        yield Notice("dataset-copies", words)


def _many_processes(it: Situation) -> Iterator[Notice]:
    if not isinstance(it.workload, Workload):
        return
    workers = it.workload.host.loader_workers
    processes = it.ranks_per_node * workers
    cpus = it.target.vcpus
    if processes > MANY_PROCESSES or (cpus and processes > cpus):
        words = (
            f"{it.ranks_per_node} ranks with {workers} loader workers each are {processes} "
            f"processes on a node of {cpus} vCPUs."
        )
        yield Notice("many-loader-processes", words)


def _beyond_page_cache(it: Situation) -> Iterator[Notice]:
    """More host memory does not help where the data is read once from disk anyway."""
    if not isinstance(it.workload, Workload) or it.workload.dataset is None:
        return
    data, host = it.workload.dataset, it.pool("host")
    size = data.rows * max(data.tokens_per_row, data.columns) * ITEM_BYTES.get(data.dtype, 0)
    if host is None or data.container != "memory-mapped" or not size:
        return
    if size > host.usable_bytes - host.peak.best_bytes:
        words = (
            f"The dataset of {size / GIB:,.0f} GiB does not fit the page cache beside the job: "
            "disk reads bind, and more memory helps only when it holds all of it."
        )
        yield Notice("disk-binds", words)


def _tensor_parallel_over_pcie(it: Situation) -> Iterator[Notice]:
    device = it.target.device
    if it.layout.tp > 1 and device is not None and not device.link_gb_per_second:
        words = (
            f"Tensor parallelism over {it.layout.tp} {device.name}, which have no direct link, "
            "runs over PCIe, which is slow."
        )
        yield Notice("tensor-parallel-over-pcie", words)


def _across_nodes(it: Situation) -> Iterator[Notice]:
    if it.layout.tp > it.ranks_per_node:
        words = "Tensor parallelism crosses nodes: every layer waits for the network."
        yield Notice("tensor-parallel-across-nodes", words)


def _watch_it(it: Situation) -> Iterator[Notice]:
    for pool in it.pools:
        used = pool.peak.high_bytes / max(pool.usable_bytes, 1)
        if pool.verdict != "no" and used > NEARLY_FULL:
            name = "GPU" if pool.pool == "gpu" else "host"
            words = (
                f"The {name} is {100 * used:.0f} % full by the high estimate: run it once under "
                "`sizewright observe` before you rely on it."
            )
            yield Notice("nearly-full", words)


def _copies_of_a_table(it: Situation) -> Iterator[Notice]:
    host = it.pool("host")
    if not isinstance(it.workload, FitWorkload) or host is None:
        return
    table = it.workload.job.table.matrix_bytes()
    if table > GIB and host.peak.best_bytes > MANY_COPIES * table:
        words = (
            f"At its peak the fit holds {host.peak.best_bytes / table:.0f} times the "
            f"{table / GIB:,.1f} GiB of its table: copies and workers, not data, make it large."
        )
        yield Notice("copies-of-the-table", words)


def _starved(it: Situation) -> Iterator[Notice]:
    """A GPU that waits: one short sequence at a time."""
    if not isinstance(it.workload, Workload) or not isinstance(it.workload.run, Training):
        return
    run, gpu = it.workload.run, it.pool("gpu")
    tokens = run.micro_batch * run.seq_len
    if gpu is not None and run.seq_len > 1 and tokens < FEW_TOKENS:
        words = f"{tokens:,} tokens a step leave a GPU mostly idle; a larger batch costs no time."
        if gpu.peak.high_bytes < MOSTLY_FREE * gpu.usable_bytes:
            yield Notice("batch-starves-gpu", words)


#: Tokens of a step below which kernels are too short to fill a GPU.
FEW_TOKENS = 512
ITEM_BYTES = {
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "uint8": 1,
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
}
RULES: tuple[Callable[[Situation], Iterator[Notice]], ...] = (
    _batch_that_wastes,
    _starved,
    _loader_copies,
    _many_processes,
    _beyond_page_cache,
    _tensor_parallel_over_pcie,
    _across_nodes,
    _copies_of_a_table,
    _watch_it,
)
