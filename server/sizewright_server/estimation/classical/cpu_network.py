"""A PyTorch network that trains or infers on the CPU, as the planner sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sizewright_server.estimation.classical.language_model import estimate_language_model
from sizewright_server.estimation.classical.network import NetworkJob, estimate_torch
from sizewright_server.estimation.classical.network_stages import Network
from sizewright_server.estimation.classical.prepared import PreparedHost
from sizewright_server.estimation.host_data import sample_bytes
from sizewright_server.estimation.memory import MemoryEstimate
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
    if isinstance(work.model, ModelSource):
        return estimate_language_model(work.model, run, data_bytes=data)
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
        )
    )
