"""Which offers a question allows, and how many each of its constraints turns away."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from operator import attrgetter

import numpy as np

from sizewright_catalog.catalog import EPOCH_DAY, Ints
from sizewright_catalog.values import (
    CPU_ARCHITECTURES,
    MBPS_OF_GBPS,
    PRICE_KINDS,
    TERMS,
    Machine,
)
from sizewright_server.estimation.kept import keep
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.planning.competitors import Competitors
from sizewright_server.planning.conditions import NodeConditions, conditions_of
from sizewright_server.planning.devices import lacks
from sizewright_server.planning.index import KEPT_CONDITIONS, OfferIndex
from sizewright_server.planning.plan import Constraints, Rejection

SPOT = TERMS.index("spot")
#: Positions kept, of all that was asked for together: each a few times 8 bytes.
KEPT_POSITIONS = 1_000_000
#: Sets of positions kept, however few each has.
KEPT_SETS = 1_024
#: The constraints that offers are held against here, but for the age of their prices.
_HELD_AGAINST = attrgetter(
    "providers",
    "regions",
    "zones",
    "purchase",
    "instance_types",
    "devices",
    "exclude_devices",
    "cpu_architectures",
    "min_vcpus",
    "min_local_disk_bytes",
    "fabrics",
    "min_network_gbps",
    "max_interruption",
    "list_prices_only",
)


@dataclass(frozen=True, slots=True)
class Eligible:
    """Positions in an index that pass every constraint but memory and money, and what failed."""

    positions: Ints
    rejections: tuple[Rejection, ...]
    #: Who competes among them, by the conditions on their nodes.
    competitors: dict[NodeConditions, Competitors] = field(default_factory=dict)


def eligible(
    index: OfferIndex, constraints: Constraints, features: tuple[str, ...], today: date
) -> Eligible:
    """The offers that pass, and what the rest failed; kept while few others are asked for.

    Constraints are taken in a fixed order; an offer counts for the first it fails.
    """
    key = (_HELD_AGAINST(constraints), features, _age_key(index, constraints, today))
    found = index.eligible.get(key)
    if found is None:
        found = _find(index, constraints, features, today)
        kept = [len(one.positions) for one in tuple(index.eligible.values())]
        if len(kept) >= KEPT_SETS or sum(kept) + len(found.positions) > KEPT_POSITIONS:
            index.eligible.clear()
        index.eligible[key] = found
    return found


def competing(
    index: OfferIndex,
    found: Eligible,
    workload: AnyWorkload,
    machines: Sequence[Machine],
    *,
    disk: bool,
) -> Competitors:
    """Who competes for a workload; kept where nobody brings machines of their own.

    `disk` says that a technique may put states on local disk, which then tells kinds apart.
    """
    conditions = conditions_of(workload)
    if disk:
        conditions = replace(conditions, disk=True)
    if machines:
        return Competitors(index, found.positions, workload, machines, conditions)
    made = found.competitors.get(conditions)
    if made is None:
        made = Competitors(index, found.positions, workload, (), conditions)
        # A host's conditions are numbers of any size: each is another set of kinds.
        keep(found.competitors, conditions, made, KEPT_CONDITIONS)
    return made


def _age_key(index: OfferIndex, asked: Constraints, today: date) -> Hashable:
    """What the age asked for tells apart: nothing where every price is young enough."""
    age = asked.max_price_age_days
    if age is None or asked.flag_stale_prices:
        return None
    oldest = (today - EPOCH_DAY).days - age
    return None if index.oldest_day >= oldest else (oldest, age)


def _find(
    index: OfferIndex, constraints: Constraints, features: tuple[str, ...], today: date
) -> Eligible:
    keep = np.ones(len(index.offers), dtype=np.bool_)
    left, rejections = len(keep), []
    for name, passes, words in _checks(index, constraints, features, today):
        keep &= passes
        before, left = left, int(np.count_nonzero(keep))
        if left < before:
            lost = before - left
            rejections.append(Rejection(name, lost, f"{lost:,} offers {words}."))
    return Eligible(np.nonzero(keep)[0], tuple(rejections))


def _checks(
    index: OfferIndex, asked: Constraints, features: tuple[str, ...], today: date
) -> Iterator[tuple[str, Ints, str]]:
    """Name, mask of what passes, and words for what does not, of each constraint that was set."""
    catalog = index.catalog
    if asked.providers:
        yield (
            "provider",
            index.among("provider", _positions(catalog.providers, asked.providers)),
            f"are not of {_any(asked.providers)}",
        )
    if asked.regions:
        yield (
            "region",
            index.among("region", _positions(catalog.regions, asked.regions)),
            f"are not in {_any(asked.regions)}",
        )
    if asked.zones:
        wanted = frozenset(asked.zones)
        inside = [i for i, zones in enumerate(catalog.zone_sets) if zones & wanted]
        words = f"are not known to be in {_any(asked.zones)}"
        yield "zone", index.among("zones", inside), words
    terms = _positions(list(TERMS), asked.purchase)
    if len(terms) < len(TERMS):
        yield "purchase", index.among("term", terms), f"are not {_any(asked.purchase)}"
    if asked.instance_types:
        names = frozenset(asked.instance_types)
        named = [i for i, name in enumerate(catalog.type_names) if name in names]
        words = f"are not {_any(asked.instance_types)}"
        yield "instance-type", index.among("type", named), words
    yield from _device_checks(index, asked, features)
    yield from _node_checks(index, asked)
    yield from _interruption_checks(index, asked)
    if asked.list_prices_only:
        firm = index.among("kind", [PRICE_KINDS.index(kind) for kind in ("list", "override")])
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
            index.among("device", _positions(catalog.device_names, asked.devices)),
            f"do not have {_any(asked.devices)}",
        )
    if asked.exclude_devices:
        yield (
            "device",
            ~index.among("device", _positions(catalog.device_names, asked.exclude_devices)),
            f"have {_any(asked.exclude_devices)}, which is excluded",
        )
    if asked.cpu_architectures:
        wanted = [CPU_ARCHITECTURES.index(name) for name in asked.cpu_architectures]
        words = f"do not have a {_any(asked.cpu_architectures)} processor"
        yield "cpu-architecture", index.among("cpu", wanted), words
    if asked.min_vcpus:
        words = f"have fewer than {asked.min_vcpus} vCPUs"
        yield "vcpus", index.vcpus >= asked.min_vcpus, words
    if features:
        words = f"have a device without {_any(features)}"
        yield "device-precision", index.kept(features, lambda: _native(index, features)), words


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
        yield "fabric", index.among("fabric", wanted), words
    if asked.min_network_gbps:
        mbps = index.network_mbps
        yield "network-unknown", mbps >= 0, "do not say how fast their network is"
        words = f"hold up less than {asked.min_network_gbps:g} Gbit/s between nodes"
        yield "network", mbps >= asked.min_network_gbps * MBPS_OF_GBPS, words


def _interruption_checks(index: OfferIndex, asked: Constraints) -> Iterator[tuple[str, Ints, str]]:
    """Of spot offers alone: nothing else is taken back."""
    if asked.max_interruption is None:
        return
    bought, taken = index.term != SPOT, index.interruption_percent
    words = "are spot, and nobody says how often they are taken back"
    yield "interruption-unknown", bought | (taken >= 0), words
    most = 100 * asked.max_interruption
    words = f"are spot of which more than {most:g} % may be taken back in a month"
    yield "interruption", bought | (taken <= most), words


def _decimal_size(size_bytes: int) -> str:
    """Disks are sold in decimal gigabytes."""
    return f"{size_bytes / 10**9:,.4g} GB"


def _native(index: OfferIndex, features: tuple[str, ...]) -> Ints:
    """Offers whose device has the features. An offer without a device lacks nothing."""
    used = np.unique(index.device).tolist()
    devices = [(i, index.catalog.devices[i]) for i in used if i >= 0]
    return ~index.among("device", [i for i, d in devices if d is not None and lacks(d, features)])


def _positions(names: list[str], asked: tuple[str, ...]) -> list[int]:
    return [names.index(name) for name in asked if name in names]


def _any(names: tuple[str, ...]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
