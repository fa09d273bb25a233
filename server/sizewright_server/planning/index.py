"""What the planner knows of one catalog version before any question: built once per version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sizewright_catalog.catalog import Catalog, Ints
from sizewright_catalog.values import AVAILABILITIES, PRICE_KINDS, Offer
from sizewright_server.estimation.kept import keep
from sizewright_server.planning.conditions import NodeConditions
from sizewright_server.planning.devices import unsupported_reason
from sizewright_server.planning.kinds import KindColumns, NodeKind, host_kind
from sizewright_server.planning.plan import Rejection

if TYPE_CHECKING:
    from sizewright_server.planning.eligibility import Eligible

#: How far each kind of price is from what its seller asks, in the order of PRICE_KINDS.
DOUBT = np.array([{"composed": 1, "estimate": 2}.get(kind, 0) for kind in PRICE_KINDS])
#: Sets of kinds kept, one for each conditions that were asked for.
KEPT_CONDITIONS = 8
#: Masks kept: the same names are asked for again and again.
KEPT_MASKS = 64
#: Offers kept as values: the cheapest are asked for again and again.
KEPT_OFFERS = 8192


class OfferIndex:
    """The offers on which a GPU framework can run, and counts of those it cannot.

    `offers` are indices into the catalog's offers, cheapest first and of equals in the order of
    their names; `type`, `nanos` and the rest are their columns.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._kinds: dict[NodeConditions, tuple[KindColumns, Ints]] = {}
        self._values: dict[int, Offer] = {}
        self._masks: dict[Hashable, Ints] = {}
        #: What constraints leave of the offers, by what they hold them against.
        self.eligible: dict[Hashable, Eligible] = {}
        types = catalog.types
        #: Per type, why the workload does not run on it: "constraint|detail"; empty where it does.
        self.type_reasons = reason = self._type_reasons()
        runs = np.array([text == "" for text in reason])
        offers = catalog.offers
        for_sale = (offers.availability == 0) & (types.availability[offers.type] == 0)
        usable = runs[offers.type] & for_sale
        lost = Counter(reason[i] for i in offers.type[~runs[offers.type]].tolist())
        marks = np.maximum(offers.availability, types.availability[offers.type])
        not_for_sale = marks[runs[offers.type] & ~for_sale].tolist()
        lost.update(f"not-for-sale|{AVAILABILITIES[mark]}" for mark in not_for_sale)
        self.static_rejections = _rejections(lost)
        self.offers = _in_order(catalog, np.nonzero(usable)[0])
        self.type = offers.type[self.offers]
        self.nanos = offers.nanos[self.offers].astype(np.int64)
        self.region = offers.region[self.offers]
        self.zones = offers.zones[self.offers]
        self.term = offers.term[self.offers]
        self.kind = offers.kind[self.offers]
        self.day = offers.day[self.offers]
        self.currency = offers.currency[self.offers]
        self.provider = types.provider[self.type]
        self.device = types.device[self.type]
        self.cpu = types.cpu[self.type]
        self.vcpus = types.vcpus[self.type]
        self.local_disk_bytes = types.local_disk_bytes[self.type]
        self.network_mbps = types.network_mbps[self.type]
        self.fabric = types.fabric[self.type]
        self.interruption_percent = offers.interruption_high_percent[self.offers]

    @cached_property
    def oldest_day(self) -> int:
        """The day of the oldest price."""
        return int(self.day.min()) if len(self.day) else 0

    def among(self, column: str, numbers: Sequence[int]) -> Ints:
        """A mask of the offers whose number in a column is one of these."""
        return self.kept((column, *numbers), lambda: _among(getattr(self, column), numbers))

    def kept(self, key: Hashable, make: Callable[[], Ints]) -> Ints:
        """A mask over the offers, made once for as long as few others are asked for."""
        found = self._masks.get(key)
        if found is None:
            found = make()
            keep(self._masks, key, found, KEPT_MASKS)
        return found

    def offer(self, position: int) -> Offer:
        """The offer at a position, the same value each time while it is kept."""
        made = self._values.get(position)
        if made is None:
            if len(self._values) >= KEPT_OFFERS:
                self._values.clear()
            made = self._values[position] = self.catalog.offer(int(self.offers[position]))
        return made

    def kinds(self, conditions: NodeConditions) -> tuple[KindColumns, Ints]:
        """Every kind of node among the index's types, and the kind of each offer."""
        found = self._kinds.get(conditions)
        if found is None:
            found = self._make_kinds(conditions)
            keep(self._kinds, conditions, found, KEPT_CONDITIONS)
        return found

    def prepare_like(self, other: OfferIndex) -> None:
        """Builds what the other has built, so that the first questions find it."""
        for conditions in tuple(other._kinds):
            self.kinds(conditions)

    def _make_kinds(self, conditions: NodeConditions) -> tuple[KindColumns, Ints]:
        types, inverse = np.unique(self.type, return_inverse=True)
        numbers: dict[NodeKind, int] = {}
        of_type = [numbers.setdefault(self._kind(int(i), conditions), len(numbers)) for i in types]
        return KindColumns(tuple(numbers)), np.array(of_type, dtype=np.int64)[inverse]

    def _kind(self, index: int, conditions: NodeConditions) -> NodeKind:
        columns = self.catalog.types
        device = self.catalog.devices[int(columns.device[index])]
        if device is None:
            raise LookupError(f"type {index} has no known device")
        usable, nominal = columns.host_usable_bytes[index], columns.host_nominal_bytes[index]
        host = conditions.left_bytes(int(usable), int(nominal))
        return NodeKind(
            device,
            int(columns.device_count[index]),
            float(columns.slice[index]),
            int(columns.gpu_usable_bytes[index]),
            host,
            connected=bool(columns.fabric[index]),
            network_mbps=max(int(columns.network_mbps[index]), 0) or None,
            fabric=self.catalog.fabrics[int(columns.fabric[index])],
            local_disk_bytes=int(columns.local_disk_bytes[index]) if conditions.disk else None,
        )

    def _type_reasons(self) -> list[str]:
        """Per type, why no GPU framework runs on it; empty when one does."""
        catalog, made = self.catalog, []
        columns = zip(
            catalog.types.reason.tolist(),
            catalog.types.device.tolist(),
            catalog.types.device_count.tolist(),
            strict=True,
        )
        for reason, device, count in columns:
            if device < 0 or count == 0:
                made.append("no-accelerator|")
                continue
            known = catalog.devices[device]
            against = "" if known is None else unsupported_reason(known)
            if against:
                made.append(f"device-unsupported|{against}")
            else:
                sized = known is not None and not reason
                made.append("" if sized else f"unsizable|{catalog.reasons[reason]}")
        return made


class HostIndex(OfferIndex):
    """The offers as a fit sees them: every one whose host memory is known, GPUs or not."""

    def _kind(self, index: int, conditions: NodeConditions) -> NodeKind:
        columns = self.catalog.types
        return host_kind(
            int(columns.host_usable_bytes[index]),
            int(columns.host_nominal_bytes[index]),
            conditions,
        )

    def _type_reasons(self) -> list[str]:
        sizes = self.catalog.types.host_usable_bytes.tolist()
        return ["" if size > 0 else "unsizable|no host memory is stated" for size in sizes]


def _among(column: Ints, numbers: Sequence[int]) -> Ints:
    # One place more than any number: -1, which is none, looks there.
    wanted = np.zeros(max([int(column.max(initial=-1)), *numbers], default=-1) + 2, dtype=np.bool_)
    wanted[list(numbers)] = True
    return wanted[column]


def _in_order(catalog: Catalog, offers: Ints) -> Ints:
    """Offers by price; of equals first what is sure of its price, then who gives more processors
    and memory for it, then by the names."""
    columns, types, kind = catalog.offers, catalog.types, catalog.offers.type[offers]
    rank_of_type = np.argsort(np.argsort(np.array(catalog.type_names), kind="stable"))
    names = (columns.term[offers], rank_of_type[kind], columns.region[offers], types.provider[kind])
    host_bytes, vcpus = (c[kind].astype(np.int64) for c in (types.host_usable_bytes, types.vcpus))
    by_worth = (-host_bytes, -vcpus, DOUBT[columns.kind[offers]])
    ordered: Ints = offers[np.lexsort((*names, *by_worth, columns.nanos[offers]))]
    return ordered


def _rejections(lost: Counter[str]) -> tuple[Rejection, ...]:
    """One rejection per constraint, with the commonest details."""
    words = {
        "no-accelerator": "have no GPU",
        "unsizable": "cannot be sized",
        "device-unsupported": "have accelerators the framework does not run on",
        "not-for-sale": "cannot be bought by the hour",
    }
    made = []
    for constraint, text in words.items():
        details = Counter(
            {key.split("|", 1)[1]: n for key, n in lost.items() if key.startswith(constraint)}
        )
        total = sum(details.values())
        if not total:
            continue
        named = "; ".join(text for text, _ in details.most_common(2) if text)
        message = f"{total:,} offers {text}" + (f" ({named})" if named else "") + "."
        made.append(Rejection(constraint, total, message))
    return tuple(made)
