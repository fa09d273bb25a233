"""A PyTorch network that trains or infers on the CPU, as the planner sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.language_model import estimate_language_model
from sizewright_server.estimation.classical.network import NetworkJob, estimate_torch
from sizewright_server.estimation.classical.network_stages import Network
from sizewright_server.estimation.classical.parts import part
from sizewright_server.estimation.classical.prepared import PreparedHost
from sizewright_server.estimation.host_data import copied_on_write, sample_bytes
from sizewright_server.estimation.memory import MemoryEstimate, Part
from sizewright_server.estimation.workload import (
    Dataset,
    HostConditions,
    Inference,
    ModelSource,
    Training,
)

LABEL_BYTES = 8


@dataclass(frozen=True, slots=True)
class CpuWorkload:
    """A model of transformers, or a list of layers, on the CPU of one node."""

    model: ModelSource | Network
    run: Training | Inference
    name: str = ""
    dataset: Dataset | None = None
    host: HostConditions = field(default_factory=HostConditions)

    @property
    def on_gpu(self) -> bool:
        """Whether GPUs are used."""
        return False


class PreparedCpu(PreparedHost[CpuWorkload]):
    """A network on the CPU whose estimate is known; the sibling of PreparedWorkload."""

    def __init__(self, workload: CpuWorkload) -> None:
        super().__init__(workload, estimate_cpu_network(workload))


def estimate_cpu_network(work: CpuWorkload) -> MemoryEstimate:
    """Peak of the process. Raises UnsupportedWorkload."""
    run = work.run
    data = 0
    if work.dataset is not None and work.dataset.container in ("in-memory", "objects"):
        data = work.dataset.rows * (sample_bytes(work.dataset) + LABEL_BYTES)
    beside = (*_loaders(work), *_copied(work))
    if isinstance(work.model, ModelSource):
        return estimate_language_model(work.model, run, data_bytes=data, beside=beside)
    training = isinstance(run, Training)
    return estimate_torch(
        NetworkJob(
            "torch",
            work.model,
            run.micro_batch if isinstance(run, Training) else run.batch,
            training,
            run.optimizer.name if isinstance(run, Training) else "sgd",
            isinstance(run, Training) and run.optimizer.step == "foreach",
            isinstance(run, Training) and run.precision != "fp32",
            data,
        ),
        beside=beside,
    )


def _loaders(work: CpuWorkload) -> tuple[Part, ...]:
    """Loader workers and their batches; None of it is page-locked without a GPU."""
    host, run = work.host, work.run
    if not host.loader_workers:
        return ()
    key = "loader_worker" if host.worker_start == "fork" else "spawned_worker"
    count = host.loader_workers
    workers = constant("process", key).part("loader-workers", "W x pages of a worker", count)
    rows = run.micro_batch if isinstance(run, Training) else run.batch
    one = sample_bytes(work.dataset) if work.dataset is not None else 0
    size = rows * one * (2 + count * host.prefetch_factor)
    numbers = f"(2 + {count} x {host.prefetch_factor}) x {rows * one:,} B"
    text = "(2 + W x p) x batch, in shared memory"
    return (workers, part("loader-prefetch", size, text, numbers, "torch DataLoader"))


def _copied(work: CpuWorkload) -> tuple[Part, ...]:
    """Pages of Python objects that forked workers copy when they read them."""
    data, host = work.dataset, work.host
    if data is None or data.container != "objects" or not host.loader_workers:
        return ()
    if host.worker_start != "fork":
        return ()
    return (copied_on_write(data.rows, host.loader_workers),)
