"""From machine types of zones to type rows, and from component prices to prices of machines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sizewright_catalog.devices import find_device
from sizewright_catalog.providers.gcp.knowledge import knowledge
from sizewright_catalog.providers.gcp.skus import (
    COMMITTED,
    ON_DEMAND,
    SHARED,
    SPOT,
    ComponentPrices,
)
from sizewright_catalog.rows import OfferRow, TypeRow, gpu_capacity, host_bytes
from sizewright_catalog.type_facts import documented
from sizewright_catalog.values import GIB, MIB, Availability, Network, Term

PROVIDER = "gcp"
SSD_WORDS = re.compile(r"(\d+) local SSDs?", re.IGNORECASE)
RETIRED = ("DEPRECATED", "OBSOLETE", "DELETED")
SOURCE = "Cloud Billing catalog, composed of SKUs"


@dataclass(slots=True)
class Machine:
    """A machine type and the zones that have it, by region."""

    name: str
    vcpus: int
    memory_mib: int
    arm: bool
    accelerator: str
    accelerator_count: int
    ssd_partitions: int
    retired: bool
    zones: dict[str, list[str]] = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        """The share of an accelerator that its smallest machines have."""
        return float(knowledge().gpu_fraction.get(self.name, 1.0))

    @property
    def family(self) -> str:
        """The family as SKUs call it."""
        words = self.name.split("-")
        return knowledge().sku_family.get("-".join(words[:2]), words[0])

    @property
    def tpu(self) -> bool:
        """Whether it carries TPUs."""
        return self.name.startswith(knowledge().tpus.prefixes)


def machine(item: Any) -> Machine:
    """A machine of a `compute_v1.MachineType`."""
    given = item.accelerators[0] if item.accelerators else None
    described = ssd_partitions(item.description)
    return Machine(
        name=item.name,
        vcpus=int(item.guest_cpus),
        memory_mib=int(item.memory_mb),
        arm=item.architecture == "ARM64",
        accelerator=given.guest_accelerator_type if given else "",
        accelerator_count=int(given.guest_accelerator_count) if given else 0,
        ssd_partitions=int(item.bundled_local_ssds.partition_count or described),
        retired=item.deprecated.state in RETIRED,
    )


def ssd_partitions(description: str) -> int:
    """The local SSDs that a machine type's description speaks of; 0 where of none."""
    words = SSD_WORDS.search(description)
    return int(words[1]) if words else 0


def type_row(of: Machine) -> TypeRow:
    """The row of a machine type. The API's memory "MB" are MiB."""
    nominal = of.memory_mib * MIB
    visible, measured = host_bytes(nominal, "")
    device = find_device(of.accelerator, PROVIDER) if of.accelerator else None
    capacity, reason = (
        gpu_capacity(device, of.accelerator, of.fraction) if of.accelerator else (0, "")
    )
    return TypeRow(
        provider=PROVIDER,
        type=of.name,
        vcpus=of.vcpus,
        cpu_architecture="arm64" if of.arm else "x86_64",
        host_nominal_bytes=nominal,
        host_visible_bytes=visible,
        host_measured=measured,
        device=device.name if device else of.accelerator,
        device_count=of.accelerator_count,
        slice=of.fraction,
        gpu_usable_bytes=capacity,
        unsizable_reason=reason,
        availability=_availability(of),
        local_disk_bytes=local_disk_bytes(of.name, of.ssd_partitions),
        local_disk_source="Compute Engine machine types and documentation",
        network=network_of(of.name),
    )


def local_disk_bytes(name: str, ssd_partitions: int) -> int | None:
    """The local SSD that is bundled with a machine type, in GiB partitions of its family.

    None where neither the API nor the documentation says that there is one, or none: to many
    machines SSDs can be attached, at a price of their own.
    """
    facts = documented(PROVIDER, name)
    if facts is not None and facts.local_disk_bytes is not None:
        return facts.local_disk_bytes
    if not ssd_partitions or name.endswith("-metal"):
        # Bare metal has fewer and larger disks than partitions are.
        return None
    sizes = knowledge().ssd_partition_gib
    return ssd_partitions * int(sizes.get(name.split("-")[0], sizes[""])) * GIB


def network_of(name: str) -> Network | None:
    """The network of a machine type, where it is documented."""
    facts = documented(PROVIDER, name)
    return None if facts is None else facts.network


def _availability(of: Machine) -> Availability:
    if of.retired:
        return "retired"
    # Its SKUs are of another service, priced per chip and slice, not per machine.
    return "unpriced" if of.tpu else "available"


@dataclass(frozen=True, slots=True)
class Place:
    """A region with the prices of components, and when they were read."""

    region: str
    prices: ComponentPrices
    day: str


def offers(of: Machine, zones: Sequence[str], place: Place) -> Iterator[OfferRow]:
    """The offers of a machine type in a region, on each term that all its components have."""
    asked: tuple[tuple[Term, str, str], ...] = (
        ("on-demand", ON_DEMAND, ""),
        ("spot", SPOT, ""),
        *(("committed", name, name) for name in COMMITTED.values()),
    )
    for term, key, commitment in asked:
        value = compose(of, place.region, key, place.prices)
        if value is None:
            continue
        reserved = key == ON_DEMAND and of.name.startswith(knowledge().not_on_demand.prefixes)
        yield OfferRow(
            provider=PROVIDER,
            type=of.name,
            region=place.region,
            zones=" ".join(zones),
            term=term,
            per_hour_nanos=value,
            currency="USD",
            kind="composed",
            day=place.day,
            source=SOURCE,
            commitment=commitment,
            availability="reservation-only" if reserved else "available",
        )


def compose(of: Machine, region: str, term: str, prices: ComponentPrices) -> int | None:
    """vCPUs + memory + GPUs + bundled SSD, in nano-dollars an hour; None when one has no price."""
    known = knowledge()
    gpu = 0
    if of.accelerator:
        each = prices.get(SHARED, of.accelerator, term, region)
        if each is None:
            return None
        gpu = round(each * of.accelerator_count * of.fraction)
        if of.accelerator in known.whole_slices:
            return gpu
    core = prices.get(of.family, "vcpu", term, region)
    gib = prices.get(of.family, "memory", term, region)
    ssd = prices.ssd(of.family, term, region) if of.ssd_partitions else 0
    if core is None or gib is None or ssd is None:
        return None
    vcpus = float(known.billed_vcpus.get(of.name, of.vcpus))
    size = int(known.ssd_partition_gib.get(of.family, known.ssd_partition_gib[""]))
    ssd_total = of.ssd_partitions * size * ssd
    return round(core * vcpus) + round(gib * of.memory_mib / 1024) + gpu + ssd_total
