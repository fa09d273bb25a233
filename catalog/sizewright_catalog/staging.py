"""Rows on their way into a version: each becomes columns at once, and its objects are let go."""

from __future__ import annotations

from array import array
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from sizewright_catalog.columns import DICTIONARIES, FIRST, OFFER_COLUMNS, TYPE_COLUMNS, fit
from sizewright_catalog.rows import OfferRow, TypeRow
from sizewright_catalog.snapshot import Arrays, text_array
from sizewright_catalog.values import AVAILABILITIES, CPU_ARCHITECTURES, PRICE_KINDS, TERMS

EPOCH_DAY = date(1970, 1, 1)
SECONDS_PER_DAY = 86_400
#: What stands in a column for a number that nobody says.
UNKNOWN = -1


class Staging:
    """Grows by rows and gives columns. 400,000 offers take some 50 MB."""

    def __init__(self) -> None:
        self._texts: dict[str, dict[str, int]] = {
            dictionary: {FIRST[dictionary]: 0} if dictionary in FIRST else {}
            for dictionary in DICTIONARIES.values()
        }
        self._columns: dict[str, array[Any]] = {
            column: array("d" if column == "type_slice" else "q")
            for column in (*TYPE_COLUMNS, *OFFER_COLUMNS)
        }
        self._types: dict[tuple[str, str], int] = {}
        self._days: dict[str, tuple[int, int]] = {}

    @property
    def type_count(self) -> int:
        """Types so far."""
        return len(self._types)

    @property
    def offer_count(self) -> int:
        """Offers so far."""
        return len(self._columns["offer_type"])

    def knows(self, provider: str, type_name: str) -> bool:
        """Whether a type has come."""
        return (provider, type_name) in self._types

    def add_type(self, row: TypeRow) -> None:
        """Takes a type; one that has come already stays as it came."""
        key = (row.provider, row.type)
        if key in self._types:
            return
        self._append(
            type_provider=self._text("providers", row.provider),
            type_vcpus=row.vcpus,
            type_cpu=CPU_ARCHITECTURES.index(row.cpu_architecture),
            type_host_nominal_bytes=row.host_nominal_bytes,
            type_host_visible_bytes=row.host_visible_bytes,
            type_host_usable_bytes=row.host_usable_bytes,
            type_host_measured=int(row.host_measured),
            type_device=self._text("devices", row.device) if row.device else -1,
            type_device_count=row.device_count,
            type_slice=row.slice,
            type_gpu_usable_bytes=row.gpu_usable_bytes,
            type_reason=self._text("reasons", row.unsizable_reason),
            type_availability=AVAILABILITIES.index(row.availability),
            type_local_disk_bytes=_or_unknown(row.local_disk_bytes),
            type_local_disk_source=self._text(
                "local_disk_sources",
                "" if row.local_disk_bytes is None else row.local_disk_source,
            ),
            type_network_mbps=_or_unknown(row.network.mbps if row.network else None),
            type_fabric=self._text("fabrics", row.network.fabric if row.network else ""),
            type_network_source=self._text(
                "network_sources", row.network.source if row.network else ""
            ),
        )
        self._types[key] = len(self._types)

    def add_offer(self, row: OfferRow) -> None:
        """Takes an offer. Raises KeyError when its type has not come, ValueError for a bad day."""
        day, second = self._moment(row.day)
        taken = row.interruption
        self._append(
            offer_type=self._types[row.provider, row.type],
            offer_region=self._text("regions", row.region),
            offer_zones=self._text("zone_sets", row.zones),
            offer_zone=self._text("zones", row.zone),
            offer_term=TERMS.index(row.term),
            offer_commitment=self._text("commitments", row.commitment),
            offer_nanos=row.per_hour_nanos,
            offer_currency=self._text("currencies", row.currency),
            offer_kind=PRICE_KINDS.index(row.kind),
            offer_day=day,
            offer_second=second,
            offer_source=self._text("sources", row.source),
            offer_availability=AVAILABILITIES.index(row.availability),
            offer_spot_low_nanos=row.spot_low_nanos,
            offer_spot_median_nanos=row.spot_median_nanos,
            offer_placement_score=row.placement_score,
            offer_interruption_low_percent=_or_unknown(taken.low_percent if taken else None),
            offer_interruption_high_percent=_or_unknown(taken.high_percent if taken else None),
            offer_interruption_source=self._text(
                "interruption_sources", taken.source if taken else ""
            ),
        )

    def arrays(self) -> Arrays:
        """The columns, in the order in which rows came; `columns.merge` makes them canonical.

        Raises ValueError when there is more than a column can number.
        """
        made: Arrays = {
            dictionary: text_array(list(texts)) for dictionary, texts in self._texts.items()
        }
        made["type_name"] = text_array([name for _, name in self._types])
        for column, dtype in (TYPE_COLUMNS | OFFER_COLUMNS).items():
            wide = np.float64 if column == "type_slice" else np.int64
            made[column] = fit(np.frombuffer(self._columns[column], dtype=wide), dtype)
        return made

    def _append(self, **values: float) -> None:
        """Appends a row whole or not at all."""
        length = len(self._columns[next(iter(values))])
        try:
            for column, value in values.items():
                self._columns[column].append(value)
        except (OverflowError, TypeError):
            for column in values:
                del self._columns[column][length:]
            raise

    def _text(self, dictionary: str, text: str) -> int:
        texts = self._texts[dictionary]
        return texts.setdefault(text, len(texts))

    def _moment(self, text: str) -> tuple[int, int]:
        """Day and second of the day of an ISO day or an ISO time."""
        found = self._days.get(text)
        if found is None:
            found = _parse(text)
            # Spot prices bring a new time each: what is kept must not grow with them.
            if len(text) == 10:
                self._days[text] = found
        return found


def _or_unknown(value: int | None) -> int:
    return UNKNOWN if value is None else value


def _parse(text: str) -> tuple[int, int]:
    if len(text) == 10:
        return (date.fromisoformat(text) - EPOCH_DAY).days, 0
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return divmod(int(moment.astimezone(UTC).timestamp()), SECONDS_PER_DAY)
