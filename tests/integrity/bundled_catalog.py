"""The bundled snapshot with look-ups by the providers' own names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.values import InstanceType, Offer


@dataclass(frozen=True)
class Bundled:
    """The bundled catalog with look-ups that fail loudly."""

    catalog: Catalog

    def type(self, provider: str, name: str) -> InstanceType:
        return self.catalog.instance_type(self.catalog.find_type(provider, name))

    def offers(self, provider: str, name: str, region: str) -> dict[str, Offer]:
        """The offers of a type in a region by term."""
        number = self.catalog.find_type(provider, name)
        columns = self.catalog.offers
        there = self.catalog.regions.index(region)
        found = np.nonzero((columns.type == number) & (columns.region == there))[0]
        offers = [self.catalog.offer(int(i)) for i in found]
        assert len({offer.term for offer in offers}) == len(offers)
        return {str(offer.term): offer for offer in offers}

    def knows(self, provider: str, name: str) -> bool:
        try:
            self.catalog.find_type(provider, name)
        except KeyError:
            return False
        return True
