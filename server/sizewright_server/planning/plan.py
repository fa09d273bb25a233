"""The planner's values: what is asked, what is offered, and why the rest lost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sizewright_catalog.values import InstanceType, Machine, Offer
from sizewright_server.estimation.memory import ByteRange, Notice
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.techniques import Applied
from sizewright_server.planning.tight import Tight
from sizewright_server.planning.variants import Variant

Verdict: TypeAlias = Literal["fits", "tight", "no"]
Objective: TypeAlias = Literal["cost-per-hour", "cost-per-job", "time"]
#: The most nano-dollars of an int64: nine billion dollars.
MOST_NANOS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Constraints:
    """What an offer must satisfy; empty or None asks nothing. Costs in nano-dollars.

    `max_interruption` is a share of spot instances a month. Whatever asks for a figure refuses an
    offer of which the figure is not known. Plans of several rented nodes need a network that is
    known, unless `allow_unknown_network`.
    """

    providers: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    purchase: tuple[str, ...] = ("on-demand", "spot")
    max_nodes: int = 1
    min_gpus: int = 0
    max_gpus: int | None = None
    devices: tuple[str, ...] = ()
    exclude_devices: tuple[str, ...] = ()
    instance_types: tuple[str, ...] = ()
    cpu_architectures: tuple[str, ...] = ()
    min_vcpus: int = 0
    headroom: float = 0.0
    max_price_age_days: float | None = None
    flag_stale_prices: bool = False
    max_cost_per_hour_nanos_usd: int | None = None
    list_prices_only: bool = False
    min_nodes: int = 1
    min_local_disk_bytes: int = 0
    max_interruption: float | None = None
    min_network_gbps: float = 0.0
    fabrics: tuple[str, ...] = ()
    allow_unknown_network: bool = False
    max_cost_per_job_nanos_usd: int | None = None


@dataclass(frozen=True, slots=True)
class PoolFit:
    """One pool against its capacity."""

    pool: Literal["gpu", "host"]
    peak: ByteRange
    usable_bytes: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """How a kind of node runs the workload, and its pools against their capacity."""

    nodes: int
    variant: Variant
    layout: Layout
    pools: tuple[PoolFit, ...]
    hours: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Placement:
    """A choice on a machine: all of a plan that no price changes. Equal to itself alone."""

    choice: Choice
    target: InstanceType | Machine
    verdict: Verdict
    reasons: tuple[str, ...]
    notices: tuple[Notice, ...]

    @property
    def job_hours(self) -> tuple[float, float, float] | None:
        """The hours of the job; None where the speed of the device is not known."""
        hours = self.choice.hours
        return hours if hours is not None and all(map(math.isfinite, hours)) else None

    @property
    def free_share(self) -> float:
        """Share of the usable memory that stays free in the fuller pool, by the high estimate."""
        used = (pool.peak.high_bytes / max(pool.usable_bytes, 1) for pool in self.choice.pools)
        return 1 - max(used)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Plan:
    """A machine, how many, and how the work lies on them, at a price. Equal to itself alone."""

    placement: Placement
    cost_per_hour_nanos_usd: int
    #: What is rented; None for the asker's own machine.
    offer: Offer | None = None
    price_notices: tuple[Notice, ...] = ()

    @property
    def machine(self) -> Machine | None:
        """What is owned; None for an offer."""
        target = self.placement.target
        return target if isinstance(target, Machine) else None

    @property
    def node_count(self) -> int:
        """How many machines."""
        return self.placement.choice.nodes

    @property
    def layout(self) -> Layout:
        """How the work lies on them."""
        return self.placement.choice.layout

    @property
    def variant(self) -> Variant:
        """The workload as it is run."""
        return self.placement.choice.variant

    @property
    def pools(self) -> tuple[PoolFit, ...]:
        """Each pool against its capacity."""
        return self.placement.choice.pools

    @property
    def verdict(self) -> Verdict:
        """The worst pool's."""
        return self.placement.verdict

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it fits or does not."""
        return self.placement.reasons

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What to know of the price, then of the run."""
        return self.price_notices + self.placement.notices

    @property
    def job_hours(self) -> tuple[float, float, float] | None:
        """Low, best and high; None where no job is stated or its speed is not known."""
        return self.placement.job_hours

    @property
    def cost_per_job_nanos_usd(self) -> int:
        """Cost of the whole job by the best estimate of its hours; 0 where no job is stated.

        At most what the contract has room for.
        """
        hours = self.job_hours
        cost = 0 if hours is None else round(self.cost_per_hour_nanos_usd * hours[1])
        return min(cost, MOST_NANOS)

    @property
    def free_share(self) -> float:
        """Share of the usable memory that stays free in the fuller pool, by the high estimate."""
        return self.placement.free_share


@dataclass(frozen=True, slots=True)
class Advice:
    """A change that would alter the answer, and what it is worth.

    `plan` is the cheapest plan with it; None where it only frees memory, and for a checked machine.
    Bytes are of the best estimate under one layout, negative where it adds. `time_factor` is the
    time of the same work on the plan with it relative to the plan without (low, best, high), and
    `work_cost_factor` the dollars of that; None where no speed is known. `details` are sentences
    with the numbers of what it takes.
    """

    steps: tuple[Applied, ...]
    gpu_bytes_saved: int
    host_bytes_saved: int
    cost_per_hour_saved_nanos_usd: int
    plan: Plan | None
    verdict: Verdict | None
    message: str
    cost_per_job_saved_nanos_usd: int = 0
    time_factor: tuple[float, float, float] | None = None
    work_cost_factor: float | None = None
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FitLimit:
    """The largest value of one field with which a workload still fits a machine."""

    field: str
    stated: int
    largest: int
    at_least: bool


@dataclass(frozen=True, slots=True)
class Rejection:
    """Offers that one constraint turned away, the first they failed."""

    constraint: str
    offer_count: int
    message: str


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Miss:
    """The nearest miss among what failed by memory alone. Equal to itself alone."""

    offer: Offer | None
    machine: Machine | None
    node_count: int
    layout: Layout
    pools: tuple[PoolFit, ...]
    missing_bytes: int
    message: str


@dataclass(frozen=True, slots=True)
class PlanningResult:
    """Plans that fit, cheapest first, and what became of every other offer.

    `tight` is the cheapest that fits by the best estimate alone, where that is cheaper.
    """

    plans: tuple[Plan, ...]
    rejections: tuple[Rejection, ...]
    nearest_miss: Miss | None
    considered_offer_count: int
    fitting_offer_count: int
    notices: tuple[Notice, ...]
    pareto: tuple[Plan, ...] = ()
    pareto_count: int = 0
    advice: tuple[Advice, ...] = ()
    tight: Tight | None = None


def verdict_of(peak: ByteRange, usable_bytes: int, headroom: float) -> Verdict:
    """`fits` when the high estimate is within the usable bytes less the headroom."""
    limit = int(usable_bytes * (1 - headroom))
    if peak.high_bytes <= limit:
        return "fits"
    return "tight" if peak.best_bytes <= limit else "no"


def worst(verdicts: tuple[Verdict, ...]) -> Verdict:
    """The worst of several verdicts."""
    for verdict in ("no", "tight"):
        if verdict in verdicts:
            return verdict
    return "fits"
