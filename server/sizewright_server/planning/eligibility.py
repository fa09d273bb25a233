"""Which offers a question allows, and how many each of its constraints turns away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np

from sizewright_catalog.catalog import EPOCH_DAY, Ints
from sizewright_catalog.values import CPU_ARCHITECTURES, PRICE_KINDS, TERMS, Device
from sizewright_server.planning.devices import lacks
from sizewright_server.planning.index import OfferIndex
from sizewright_server.planning.plan import Constraints, Rejection

SPOT = TERMS.index("spot")
#: Megabits of a gigabit.
MBPS = 1000


def eligible(
    index: OfferIndex, constraints: Constraints, features: tuple[str, ...], today: date
) -> tuple[Ints, list[Rejection]]:
    """Positions in the index that pass every constraint but memory, and what the rest failed.

    Constraints are taken in a fixed order; an offer counts for the first it fails.
    """
    keep = np.ones(len(index.offers), dtype=np.bool_)
    rejections = []
    for name, passes, words in _checks(index, constraints, features, today):
        lost = int((keep & ~passes).sum())
        if lost:
            rejections.append(Rejection(name, lost, f"{lost:,} offers {words}."))
            keep &= passes
    return np.nonzero(keep)[0], rejections


def _checks(
    index: OfferIndex, asked: Constraints, features: tuple[str, ...], today: date
) -> Iterator[tuple[str, Ints, str]]:
    """Name, mask of what passes, and words for what does not, of each constraint that was set."""
    catalog = index.catalog
    if asked.providers:
        yield (
            "provider",
            np.isin(index.provider, _positions(catalog.providers, asked.providers)),
            f"are not of {_any(asked.providers)}",
        )
    if asked.regions:
        yield (
            "region",
            np.isin(index.region, _positions(catalog.regions, asked.regions)),
            f"are not in {_any(asked.regions)}",
        )
    if asked.zones:
        wanted = frozenset(asked.zones)
        inside = np.array([bool(zones & wanted) for zones in catalog.zone_sets])
        yield "zone", inside[index.zones], f"are not known to be in {_any(asked.zones)}"
    terms = _positions(list(TERMS), asked.purchase)
    if len(terms) < len(TERMS):
        yield "purchase", np.isin(index.term, terms), f"are not {_any(asked.purchase)}"
    if asked.instance_types:
        names = frozenset(asked.instance_types)
        named = np.array([name in names for name in catalog.type_names])
        yield "instance-type", named[index.type], f"are not {_any(asked.instance_types)}"
    yield from _device_checks(index, asked, features)
    yield from _node_checks(index, asked)
    yield from _interruption_checks(index, asked)
    if asked.list_prices_only:
        firm = np.isin(index.kind, [PRICE_KINDS.index(kind) for kind in ("list", "override")])
        yield "price-kind", firm, "have an estimated or composed price"
    if asked.max_price_age_days is not None and not asked.flag_stale_prices:
        oldest = (today - EPOCH_DAY).days - asked.max_price_age_days
        words = f"have a price older than {asked.max_price_age_days:g} days"
        yield "price-age", index.day >= oldest, words
    yield "currency", index.currency == 0, "are priced in another currency than US dollars"


def _device_checks(
    index: OfferIndex, asked: Constraints, features: tuple[str, ...]
) -> Iterator[tuple[str, Ints, str]]:
    catalog = index.catalog
    if asked.devices:
        yield (
            "device",
            np.isin(index.device, _positions(catalog.device_names, asked.devices)),
            f"do not have {_any(asked.devices)}",
        )
    if asked.exclude_devices:
        yield (
            "device",
            ~np.isin(index.device, _positions(catalog.device_names, asked.exclude_devices)),
            f"have {_any(asked.exclude_devices)}, which is excluded",
        )
    if asked.cpu_architectures:
        wanted = [CPU_ARCHITECTURES.index(name) for name in asked.cpu_architectures]
        words = f"do not have a {_any(asked.cpu_architectures)} processor"
        yield "cpu-architecture", np.isin(index.cpu, wanted), words
    if asked.min_vcpus:
        words = f"have fewer than {asked.min_vcpus} vCPUs"
        yield "vcpus", index.vcpus >= asked.min_vcpus, words
    if features:
        missing = [device is not None and bool(lacks(device, features)) for device in _known(index)]
        words = f"have a device without native {_any(features)}"
        yield "device-precision", ~np.array(missing)[index.device], words


def _node_checks(index: OfferIndex, asked: Constraints) -> Iterator[tuple[str, Ints, str]]:
    """Local disk and network. Where nobody says it, the offer is refused for that."""
    if asked.min_local_disk_bytes:
        disk = index.local_disk_bytes
        yield "local-disk-unknown", disk >= 0, "do not say how much local disk they have"
        words = f"have less than {_decimal_size(asked.min_local_disk_bytes)} of local disk"
        yield "local-disk", disk >= asked.min_local_disk_bytes, words
    if asked.fabrics:
        yield "fabric-unknown", index.fabric > 0, "do not say how their nodes reach each other"
        wanted = _positions(index.catalog.fabrics, asked.fabrics)
        words = f"have no {_any(asked.fabrics)} between nodes"
        yield "fabric", np.isin(index.fabric, wanted), words
    if asked.min_network_gbps:
        mbps = index.network_mbps
        yield "network-unknown", mbps >= 0, "do not say how fast their network is"
        words = f"hold up less than {asked.min_network_gbps:g} Gbit/s between nodes"
        yield "network", mbps >= asked.min_network_gbps * MBPS, words


def _interruption_checks(index: OfferIndex, asked: Constraints) -> Iterator[tuple[str, Ints, str]]:
    """Of spot offers alone: nothing else is taken back."""
    if asked.max_interruption is None:
        return
    bought, taken = index.term != SPOT, index.interruption_percent
    words = "are spot, and nobody says how often they are taken back"
    yield "interruption-unknown", bought | (taken >= 0), words
    words = f"are spot of which more than {asked.max_interruption:.0%} may be taken back in a month"
    yield "interruption", bought | (taken <= 100 * asked.max_interruption), words


def _decimal_size(size_bytes: int) -> str:
    """Disks are sold in decimal gigabytes."""
    return f"{size_bytes / 10**9:,.4g} GB"


def _known(index: OfferIndex) -> list[Device | None]:
    """The devices the index's offers have; None for the others, on which nothing runs."""
    used = set(index.device.tolist())
    return [d if i in used else None for i, d in enumerate(index.catalog.devices)]


def _positions(names: list[str], asked: tuple[str, ...]) -> list[int]:
    return [names.index(name) for name in asked if name in names]


def _any(names: tuple[str, ...]) -> str:
    return " or ".join(names)
