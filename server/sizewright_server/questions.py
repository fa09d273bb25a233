"""What is asked of the service, as validated values."""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.planning.job import Job
from sizewright_server.planning.plan import Constraints, Objective


@dataclass(frozen=True, slots=True)
class EstimateQuestion:
    """What Estimate asks. `gpus` 0 leaves it to the layout; `device` None is any."""

    workload: AnyWorkload
    #: Equal for equal workloads: what was prepared for one serves the other.
    key: bytes
    gpus: int
    gpus_per_node: int
    device: str | None


@dataclass(frozen=True, slots=True)
class RecommendQuestion:
    """What Recommend asks."""

    workload: AnyWorkload
    #: Equal for equal workloads: what was prepared for one serves the other.
    key: bytes
    constraints: Constraints
    max_results: int
    explain: bool
    machines: tuple[Machine, ...]
    objective: Objective = "cost-per-hour"
    techniques: tuple[str, ...] = ()
    job: Job | None = None
    advise: bool = False


@dataclass(frozen=True, slots=True)
class CheckQuestion:
    """What CheckFit asks."""

    workload: AnyWorkload
    #: Equal for equal workloads: what was prepared for one serves the other.
    key: bytes
    target: InstanceType | Machine
    node_count: int
    headroom: float
    advise: bool = False
