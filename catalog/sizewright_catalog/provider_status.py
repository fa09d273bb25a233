"""What a catalog holds of each provider: how many offers and types, and how old its prices are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from sizewright_catalog.catalog import EPOCH_DAY, Catalog


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """What a catalog holds of one provider."""

    provider: str
    offer_count: int
    instance_type_count: int
    oldest_price_day: date
    newest_price_day: date
    estimated_offer_count: int


def provider_statuses(catalog: Catalog) -> Iterator[ProviderStatus]:
    """What is held of each provider, by name."""
    owner = catalog.types.provider[catalog.offers.type]
    for number, provider in enumerate(catalog.providers):
        mine = owner == number
        days = catalog.offers.day[mine]
        if not len(days):
            continue
        yield ProviderStatus(
            provider=provider,
            offer_count=int(mine.sum()),
            instance_type_count=int((catalog.types.provider == number).sum()),
            oldest_price_day=EPOCH_DAY + timedelta(days=int(days.min())),
            newest_price_day=EPOCH_DAY + timedelta(days=int(days.max())),
            estimated_offer_count=int((catalog.offers.kind[mine] != 0).sum()),
        )
