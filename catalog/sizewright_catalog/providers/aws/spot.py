"""Spot price history to one price per type and zone: the latest, the lowest and the median."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from statistics import median_low
from typing import Any

from sizewright_catalog.values import NANOS


@dataclass(frozen=True, slots=True)
class SpotPrice:
    """What a type costs in a zone since `since`, and what it cost over the history."""

    type: str
    zone: str
    latest_nanos: int
    lowest_nanos: int
    median_nanos: int
    since: str


class SpotHistory:
    """Collects changes of price. Two numbers each: a day of a large region is a few MB."""

    def __init__(self) -> None:
        self._changes: dict[tuple[str, str], list[tuple[int, int]]] = {}

    def add(self, changes: Iterable[Mapping[str, Any]]) -> None:
        """Takes changes in any order. Raises KeyError or ValueError for garbage."""
        for change in changes:
            key = (change["InstanceType"], change["AvailabilityZone"])
            value = int((Decimal(change["SpotPrice"]) * NANOS).to_integral_value())
            moment = change["Timestamp"]
            self._changes.setdefault(key, []).append((int(moment.timestamp()), value))

    def prices(self) -> Iterator[SpotPrice]:
        """One price per type and zone, by type and zone.

        The lowest and the median are over changes, not over time: the median is a price that was
        asked for. The price that held when the history begins counts as one of them.
        """
        for (name, zone), changes in sorted(self._changes.items()):
            moment, latest = max(changes)
            values = [value for _, value in changes]
            since = datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
            yield SpotPrice(name, zone, latest, min(values), median_low(values), since)
