"""A PyTorch network that trains or infers on the CPU, as the planner sees it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sizewright_server.estimation.classical.estimate import host_estimate
from sizewright_server.estimation.classical.language_model import estimate_language_model
from sizewright_server.estimation.classical.loading import (
    loaded_parts,
    loader_parts,
    saved_parts,
)
from sizewright_server.estimation.classical.network import NetworkJob, estimate_torch
from sizewright_server.estimation.classical.network_stages import Network
from sizewright_server.estimation.classical.parts import Moment
from sizewright_server.estimation.classical.prepared import PreparedHost
from sizewright_server.estimation.host_data import sample_bytes
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
    """Peak of the process, its checkpoints with it. Raises UnsupportedWorkload."""
    run = work.run
    data = 0
    if work.dataset is not None and work.dataset.container in ("in-memory", "objects"):
        data = work.dataset.rows * (sample_bytes(work.dataset) + LABEL_BYTES)
    if isinstance(work.model, ModelSource):
        made = estimate_language_model(work.model, run, data_bytes=data, beside=_loaders(work))
        return with_checkpoints(made, work.host)
    training = isinstance(run, Training)
    job = NetworkJob(
        "torch",
        work.model,
        run.micro_batch if isinstance(run, Training) else run.batch,
        training,
        run.optimizer.name if isinstance(run, Training) else "sgd",
        isinstance(run, Training) and run.optimizer.step == "foreach",
        isinstance(run, Training) and run.precision != "fp32",
        data,
    )
    made = estimate_torch(job, beside=_loaders(work))
    # A list of layers has no checkpoint it starts from.
    return with_checkpoints(made, replace(work.host, checkpoint_load="random-init"))


def with_checkpoints(estimate: MemoryEstimate, host: HostConditions) -> MemoryEstimate:
    """The estimate with the checkpoint's way into the model, and with saving one after a step."""
    pool = estimate.pool("host")
    moments = [Moment(phase.name, phase.parts) for phase in pool.phases]
    kept = ("parameters", "optimizer-state")
    held = {p.name: p for moment in moments for p in moment.parts if p.name in kept}
    weights = held["parameters"].size.best_bytes
    load = moments[0]
    moments[0] = Moment(load.name, (*load.parts, *loaded_parts(host.checkpoint_load, weights)))
    trained = any(moment.name == "optimizer-step" for moment in moments)
    if trained and host.checkpoint_save != "none":
        size = sum(part.size.best_bytes for part in held.values())
        states = tuple(part for name, part in held.items() if name != "parameters")
        moments.append(Moment("save", (*load.parts, *states, *saved_parts(size))))
    made = host_estimate(tuple(moments), estimate.architecture, pool.scope)
    return replace(estimate, pools=made.pools)


def _loaders(work: CpuWorkload) -> tuple[Part, ...]:
    """The loader's order, batches and workers; nothing is page-locked without a GPU."""
    data, host, run = work.dataset, work.host, work.run
    if data is None or not data.rows:
        return ()
    rows = run.micro_batch if isinstance(run, Training) else run.batch
    return loader_parts(
        data.rows if isinstance(run, Training) else 0,
        rows * sample_bytes(data),
        host.loader_workers,
        host.prefetch_factor,
        start=host.worker_start,
        objects=data.container == "objects",
    )
