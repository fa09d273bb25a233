"""The catalog's values: devices, instance types, offers, prices, machines. All sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal, TypeAlias

from sizewright_catalog.owned.ownership import Ownership

Term: TypeAlias = Literal["on-demand", "spot", "committed"]
PriceKind: TypeAlias = Literal["list", "estimate", "composed", "override"]
#: Whether anyone can buy it by the hour. All but the first are shown and never ranked.
Availability: TypeAlias = Literal[
    "available", "capacity-block-only", "reservation-only", "retired", "unpriced"
]

TERMS: tuple[Term, ...] = ("on-demand", "spot", "committed")
PRICE_KINDS: tuple[PriceKind, ...] = ("list", "estimate", "composed", "override")
AVAILABILITIES: tuple[Availability, ...] = (
    "available",
    "capacity-block-only",
    "reservation-only",
    "retired",
    "unpriced",
)
CPU_ARCHITECTURES = ("x86_64", "arm64")

MIB = 2**20
GIB = 2**30
NANOS = 10**9
#: Megabits of a gigabit.
MBPS_OF_GBPS = 1000


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator.

    `driver_total_bytes` is what the driver reports (`nvidia-smi`), `usable_bytes` what the runtime
    can hand out of it: the total less what driver and firmware keep, which no process is shown to
    use. The device reading of a job is compared with the latter. None where not known.
    """

    name: str
    vendor: str
    architecture: str
    nominal_bytes: int
    driver_total_bytes: int | None
    compute_capability: str
    link_gb_per_second: float
    evidence: str
    usable_bytes: int | None = None
    usable_evidence: str = ""


@dataclass(frozen=True, slots=True)
class Overhead:
    """What takes memory off a node, by name, with where the figure is from."""

    name: str
    size_bytes: int
    source: str


@dataclass(frozen=True, slots=True)
class Network:
    """How a node reaches other nodes of its kind.

    `mbps` are the megabits a second it can hold up, over the fabric where it has one; None where
    nobody says. `fabric` is "ethernet", or what bypasses the system's own stack, such as "efa" or
    "infiniband"; empty where not known.
    """

    mbps: int | None
    fabric: str
    source: str


@dataclass(frozen=True, slots=True)
class Interruption:
    """How many in a hundred spot instances were taken back within a month, and who says so."""

    low_percent: int
    high_percent: int
    source: str


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A machine a provider rents. `slice` is the share of one device for fractional GPUs.

    `unsizable_reason` says why nothing can be promised for it; empty when something can.
    `availability` says whether it can be bought by the hour at all. `local_disk_bytes` come with
    it at no extra price; None where nobody says, as `network`.
    """

    name: str
    provider: str
    type: str
    vcpus: int
    cpu_architecture: str
    host_nominal_bytes: int
    host_usable_bytes: int
    overheads: tuple[Overhead, ...]
    device: Device | None
    device_count: int
    slice: float
    gpu_usable_bytes: int
    unsizable_reason: str
    availability: Availability = "available"
    local_disk_bytes: int | None = None
    local_disk_source: str = ""
    network: Network | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-units of `currency` per node and hour, true at `source` on `day`.

    `second` is the second of that day, 0 where the source states the day alone. The lowest and
    the median spot price are over the source's history; 0 where unknown.
    """

    per_hour_nanos: int
    currency: str
    kind: PriceKind
    day: date
    source: str
    second: int = 0
    spot_low_nanos: int = 0
    spot_median_nanos: int = 0


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Offer:
    """An instance type in a region, on a term, at a price. `zones` are where it is offered.

    `zone` is set where the price holds there alone; `commitment` names what a committed price
    asks for. What is not "available" is shown and never ranked. `placement_score` says from 1 to
    10 how likely spot capacity is to be had there; 0 where that is not known. `interruption` is
    None for what is not spot, and where nobody says.
    """

    name: str
    instance_type: InstanceType
    region: str
    zones: tuple[str, ...]
    term: Term
    price: Price
    zone: str = ""
    commitment: str = ""
    availability: Availability = "available"
    placement_score: int = 0
    interruption: Interruption | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """An owned machine; `count` of them. Capacity is stated by its owner or read on it.

    With `unified_memory` host and GPU take from the same memory: what one has the other has not.
    `model` names the entry of the machine library it was made from; empty without one. None for
    `local_disk_bytes` and `network`: its owner does not say.
    """

    name: str
    vcpus: int
    cpu_architecture: str
    host_nominal_bytes: int
    host_usable_bytes: int
    overheads: tuple[Overhead, ...]
    device: Device | None
    device_count: int
    slice: float
    gpu_usable_bytes: int
    cost_per_hour_nanos_usd: int = 0
    count: int = 1
    unified_memory: bool = False
    model: str = ""
    ownership: Ownership | None = None
    local_disk_bytes: int | None = None
    network: Network | None = None


def instance_type_name(provider: str, type_name: str) -> str:
    """The resource name of an instance type."""
    return f"providers/{provider}/instanceTypes/{type_name}"


def offer_name(provider: str, region: str, type_name: str, term: str, zone: str = "") -> str:
    """The resource name of an offer; without a zone, one that holds for a whole region."""
    place = f"providers/{provider}/regions/{region}/zones/{zone or '-'}"
    return f"{place}/instanceTypes/{type_name}/terms/{term}"


def parse_instance_type_name(name: str) -> tuple[str, str]:
    """Provider and type of a resource name. Raises ValueError when it is not one."""
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != "providers" or parts[2] != "instanceTypes":
        raise ValueError(f"{name!r} is not of the form providers/PROVIDER/instanceTypes/TYPE")
    return parts[1], parts[3]
