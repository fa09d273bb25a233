"""A provider as large as AWS: 1,400 types in 30 regions, 420,000 offers, three zones a region."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.providers.contract import FetchContext, Page, Schedule
from sizewright_catalog.rows import OfferRow, TypeRow
from sizewright_catalog.values import CPU_ARCHITECTURES, NANOS

TYPES, REGIONS, ZONES = 1400, 30, "abc"
COMMITMENTS = tuple(
    f"{plan}-{years}y-{paid}"
    for plan in ("reserved", "savings-plan")
    for years in (1, 3)
    for paid in ("no-upfront", "partial-upfront", "all-upfront")
)[:6]
#: On demand, spot in each zone, and the commitments.
OFFERS = TYPES * REGIONS * (1 + len(ZONES) + len(COMMITMENTS))
PAGE_ROWS = 1000


class Large:
    """Rows made as they are asked for, as an SDK's paginator does; prices rise with each fetch."""

    name = "large"
    schedule = Schedule(every_seconds=3600)

    def __init__(self) -> None:
        self._types = _types()

    def scopes(self, context: FetchContext) -> Sequence[str]:
        """The regions."""
        return [f"region-{n}" for n in range(1, REGIONS + 1)]

    def fetch(self, scope: str, context: FetchContext) -> Iterator[Page]:
        """A page of types, then pages of offers."""
        yield Page(types=self._types)
        factor = 1 + float(context.settings.get("rise", "0"))
        offers = (row for kind in self._types for row in _offers(kind, scope, factor))
        while rows := list(islice(offers, PAGE_ROWS)):
            context.check()
            yield Page(offers=rows)


def _types() -> list[TypeRow]:
    """The shapes of bundled types, under names of their own."""
    catalog = Catalog.load()
    columns, made = catalog.types, []
    for n in range(TYPES):
        kind = catalog.instance_type(n)
        made.append(
            TypeRow(
                provider=Large.name,
                type=f"large.{n}",
                vcpus=kind.vcpus,
                cpu_architecture=CPU_ARCHITECTURES[int(columns.cpu[n])],
                host_nominal_bytes=kind.host_nominal_bytes,
                host_visible_bytes=kind.host_usable_bytes,
                host_measured=False,
                device=kind.device.name if kind.device else "",
                device_count=kind.device_count,
                slice=kind.slice,
                gpu_usable_bytes=kind.gpu_usable_bytes,
                unsizable_reason=kind.unsizable_reason,
            )
        )
    return made


def _offers(kind: TypeRow, region: str, factor: float) -> Iterator[OfferRow]:
    dollars = 0.05 * max(kind.vcpus, 1) + 2.0 * kind.device_count * kind.slice
    whole = int(dollars * factor * NANOS)
    zones = " ".join(region + letter for letter in ZONES)
    common = (Large.name, kind.type, region, zones)
    yield OfferRow(*common, "on-demand", whole, "USD", "list", "2026-11-24", "list")
    for n, letter in enumerate(ZONES):
        price = whole * (30 + n) // 100
        moment = f"2026-11-24T{n:02d}:{len(kind.type):02d}:00+00:00"
        yield OfferRow(
            *common, "spot", price, "USD", "list", moment, "spot history",
            zone=region + letter, spot_low_nanos=price // 2, spot_median_nanos=price,
        )  # fmt: skip
    for n, name in enumerate(COMMITMENTS):
        price = whole * (60 - n) // 100
        yield OfferRow(
            *common, "committed", price, "USD", "list", "2026-11-24", "list", commitment=name
        )
