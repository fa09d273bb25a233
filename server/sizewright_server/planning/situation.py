"""What a pitfall is judged by: a workload on a machine under a layout."""

from __future__ import annotations

from dataclasses import dataclass, field

from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.estimation.classical.prepared import PreparedFit
from sizewright_server.estimation.estimator import PreparedWorkload
from sizewright_server.estimation.memory import PoolEstimate
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.workload import Inference, Layout, Training, Workload
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.plan import Choice, PoolFit

GIB = 2**30


@dataclass(slots=True)
class Situation:
    """A workload on a machine under a layout; `hours` of its job where one is stated.

    `workload` is what is run, with the techniques of the plan; `network`, `training`, `inference`
    and `model` are it where it is a PyTorch network on GPUs, and None where it is something else.
    """

    prepared: Prepared
    target: InstanceType | Machine
    layout: Layout
    nodes: int
    pools: tuple[PoolFit, ...]
    hours: tuple[float, float, float] | None = None
    workload: AnyWorkload = field(init=False)
    network: Workload | None = field(init=False)
    training: Training | None = field(init=False)
    inference: Inference | None = field(init=False)
    model: PreparedWorkload | None = field(init=False)

    def __post_init__(self) -> None:
        # Said once: every rule asks for them.
        self.workload = self.prepared.workload
        self.network = self.workload if isinstance(self.workload, Workload) else None
        run = None if self.network is None else self.network.run
        self.training = run if isinstance(run, Training) else None
        self.inference = run if isinstance(run, Inference) else None
        self.model = self.prepared if isinstance(self.prepared, PreparedWorkload) else None

    @classmethod
    def of(cls, target: InstanceType | Machine, choice: Choice) -> Situation:
        """The situation of a choice on a machine."""
        prepared = choice.variant.prepared
        return cls(prepared, target, choice.layout, choice.nodes, choice.pools, choice.hours)

    @property
    def ranks_per_node(self) -> int:
        """Processes of the job on a node."""
        return max(self.layout.gpus // self.nodes, 1)

    def pool(self, name: str) -> PoolFit | None:
        """A pool by name."""
        for pool in self.pools:
            if pool.pool == name:
                return pool
        return None

    def used(self, name: str) -> float:
        """Share of a pool's usable bytes that the high estimate takes; 0 where there is none."""
        pool = self.pool(name)
        return 0.0 if pool is None else pool.peak.high_bytes / max(pool.usable_bytes, 1)

    def host_phases(self) -> PoolEstimate | None:
        """The phases of a fit; None for what is not one."""
        if not isinstance(self.prepared, PreparedFit):
            return None
        made = self.prepared.estimate(self.layout, 1, device_overhead(None, None))
        return made.pool("host")


def gib(size_bytes: float) -> str:
    """Bytes in GiB, with as many digits as say something."""
    value = size_bytes / GIB
    return f"{value:,.0f} GiB" if value >= 10 else f"{value:,.1f} GiB"


def seconds(fast: float, slow: float) -> str:
    """A span of time in words."""
    for unit, length in (("hours", 3600.0), ("min", 60.0)):
        if fast >= 2 * length:
            return f"{fast / length:,.0f} to {slow / length:,.0f} {unit}"
    return f"{fast:,.1f} to {slow:,.1f} s" if fast < 2 else f"{fast:,.0f} to {slow:,.0f} s"
