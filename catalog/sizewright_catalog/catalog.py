"""The catalog of one version: columns for arithmetic, values for answers.

Columns are parallel NumPy arrays over instance types (`types`) and offers (`offers`), mapped from
the snapshot file. Offers are ordered by type and, within a type, by price.
"""

from __future__ import annotations

import difflib
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewright_catalog.capacity import overheads
from sizewright_catalog.devices import devices
from sizewright_catalog.snapshot import Arrays, SnapshotError, read_snapshot, read_text
from sizewright_catalog.texts import Texts
from sizewright_catalog.values import (
    AVAILABILITIES,
    CPU_ARCHITECTURES,
    PRICE_KINDS,
    TERMS,
    Device,
    InstanceType,
    Interruption,
    Network,
    Offer,
    Price,
    instance_type_name,
    offer_name,
)
from sizewright_catalog.version_columns import OfferColumns, TypeColumns

Ints = NDArray[Any]
EPOCH_DAY = date(1970, 1, 1)


class Catalog(Texts):
    """One immutable version. Make it with `load`."""

    def __init__(self, arrays: Arrays, meta: dict[str, Any]) -> None:
        super().__init__(arrays)
        # What was collected in one go says so once.
        built = dict.fromkeys(read_text(arrays["providers"]), meta["build_time"])
        self.meta = {"as_of": built, **meta}
        self.version: str = meta["version"]
        self.build_day = date.fromisoformat(meta["build_day"])
        self.build_time = _unix_seconds(meta["build_time"])
        #: When each provider's rows were taken, in Unix seconds: a version mixes older and newer.
        self.as_of = {name: _unix_seconds(text) for name, text in self.meta["as_of"].items()}
        self.dropped: dict[str, int] = meta["dropped"]
        self.types = TypeColumns(
            *(arrays[f"type_{name}"] for name in TypeColumns.__dataclass_fields__)
        )
        self.offers = OfferColumns(
            *(arrays[f"offer_{name}"] for name in OfferColumns.__dataclass_fields__)
        )
        self.providers = read_text(arrays["providers"])
        self.regions = read_text(arrays["regions"])
        self.device_names = read_text(arrays["devices"])
        self.reasons = read_text(arrays["reasons"])
        self.currencies = read_text(arrays["currencies"])
        self._instance_types: dict[int, InstanceType] = {}

    @classmethod
    def load(cls, path: Path | None = None) -> Catalog:
        """Maps a snapshot file, the bundled one by default.

        Raises SnapshotError when it is missing, torn, damaged or lacks a column.
        """
        if path is None:
            path = Path(str(resources.files("sizewright_catalog").joinpath("data/snapshot.npz")))
        arrays, meta = read_snapshot(path)
        try:
            return cls(arrays, meta)
        except KeyError as missing:
            raise SnapshotError(f"{path} lacks {missing.args[0]}") from missing

    @property
    def arrays(self) -> Arrays:
        """Every array of the file, as `columns.py` takes them."""
        return self._arrays

    @property
    def type_count(self) -> int:
        """Instance types in all."""
        return len(self.types.vcpus)

    @property
    def offer_count(self) -> int:
        """Offers in all."""
        return len(self.offers.type)

    @cached_property
    def devices(self) -> list[Device | None]:
        """The device of each index of `types.device`; None for one the table does not know."""
        known = devices()
        return [known.get(name) for name in self.device_names]

    @cached_property
    def askable_devices(self) -> list[str]:
        """The names a question may use: those of the offers and those of the device table."""
        return sorted({*self.device_names, *devices()})

    @cached_property
    def _type_numbers(self) -> dict[tuple[str, str], int]:
        providers = [self.providers[i] for i in self.types.provider.tolist()]
        return {key: i for i, key in enumerate(zip(providers, self.type_names, strict=True))}

    def find_type(self, provider: str, type_name: str) -> int:
        """Index of a type. Raises KeyError with near names when there is none."""
        found = self._type_numbers.get((provider, type_name))
        if found is not None:
            return found
        near = self.near_types(provider, type_name)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise KeyError(f"no instance type {instance_type_name(provider, type_name)}{hint}")

    def near_types(self, provider: str, type_name: str) -> list[str]:
        """Resource names that look like a type that does not exist."""
        names = [name for owner, name in self._type_numbers if owner == provider]
        names = names or self.type_names
        close = difflib.get_close_matches(type_name, names, n=3)
        return [
            instance_type_name(owner, name) for owner, name in self._type_numbers if name in close
        ][:3]

    def instance_type(self, index: int) -> InstanceType:
        """The value of a type, made once."""
        made = self._instance_types.get(index)
        if made is None:
            made = self._instance_types[index] = self._make_type(index)
        return made

    def _make_type(self, index: int) -> InstanceType:
        columns = self.types
        provider = self.providers[int(columns.provider[index])]
        type_name = self.type_names[index]
        nominal = int(columns.host_nominal_bytes[index])
        visible = int(self._arrays["type_host_visible_bytes"][index])
        device = int(columns.device[index])
        return InstanceType(
            name=instance_type_name(provider, type_name),
            provider=provider,
            type=type_name,
            vcpus=int(columns.vcpus[index]),
            cpu_architecture=CPU_ARCHITECTURES[int(columns.cpu[index])],
            host_nominal_bytes=nominal,
            host_usable_bytes=int(columns.host_usable_bytes[index]),
            overheads=overheads(
                nominal, visible, measured=bool(self._arrays["type_host_measured"][index])
            ),
            device=self._device(device),
            device_count=int(columns.device_count[index]),
            slice=float(columns.slice[index]),
            gpu_usable_bytes=int(columns.gpu_usable_bytes[index]),
            unsizable_reason=self.reasons[int(columns.reason[index])],
            availability=AVAILABILITIES[int(columns.availability[index])],
            local_disk_bytes=_known(columns.local_disk_bytes[index]),
            local_disk_source=self.local_disk_sources[int(columns.local_disk_source[index])],
            network=self._network(index),
        )

    def _network(self, index: int) -> Network | None:
        columns = self.types
        mbps, fabric = _known(columns.network_mbps[index]), int(columns.fabric[index])
        if mbps is None and not fabric:
            return None
        source = self.network_sources[int(columns.network_source[index])]
        return Network(mbps, self.fabrics[fabric], source)

    def _interruption(self, index: int) -> Interruption | None:
        columns = self.offers
        high = _known(columns.interruption_high_percent[index])
        if high is None:
            return None
        source = self.interruption_sources[int(columns.interruption_source[index])]
        return Interruption(int(columns.interruption_low_percent[index]), high, source)

    def offer(self, index: int) -> Offer:
        """The value of an offer."""
        columns = self.offers
        made = self.instance_type(int(columns.type[index]))
        region = self.regions[int(columns.region[index])]
        term = TERMS[int(columns.term[index])]
        price = Price(
            per_hour_nanos=int(columns.nanos[index]),
            currency=self.currencies[int(columns.currency[index])],
            kind=PRICE_KINDS[int(columns.kind[index])],
            day=EPOCH_DAY + timedelta(days=int(columns.day[index])),
            source=self.sources[int(columns.source[index])],
            second=int(columns.second[index]),
            spot_low_nanos=int(columns.spot_low_nanos[index]),
            spot_median_nanos=int(columns.spot_median_nanos[index]),
        )
        zone = self.zones[int(columns.zone[index])]
        commitment = self.commitments[int(columns.commitment[index])]
        return Offer(
            name=offer_name(made.provider, region, made.type, commitment or term, zone),
            instance_type=made,
            region=region,
            zones=tuple(sorted(self.zone_sets[int(columns.zones[index])])),
            term=term,
            price=price,
            zone=zone,
            commitment=commitment,
            placement_score=int(columns.placement_score[index]),
            interruption=self._interruption(index),
            availability=AVAILABILITIES[int(columns.availability[index])],
        )

    def offers_where(
        self,
        *,
        provider: str = "",
        region: str = "",
        type_name: str = "",
        device: str = "",
        terms: tuple[str, ...] = (),
    ) -> NDArray[np.int64]:
        """Indices of the offers that match, cheapest first and then in the catalog's order."""
        keep = np.ones(self.offer_count, dtype=np.bool_)
        kind = self.offers.type
        if provider:
            keep &= (self.types.provider == _index(self.providers, provider))[kind]
        if region:
            keep &= self.offers.region == _index(self.regions, region)
        if type_name:
            keep &= np.array([name == type_name for name in self.type_names])[kind]
        if device:
            keep &= (self.types.device == _index(self.device_names, device))[kind]
        if terms:
            keep &= np.isin(self.offers.term, [TERMS.index(t) for t in terms])
        found = np.nonzero(keep)[0]
        return found[np.argsort(self.offers.nanos[found], kind="stable")]

    def types_where(self, *, provider: str = "", device: str = "") -> NDArray[np.int64]:
        """Indices of the types that match, by name."""
        keep = np.ones(self.type_count, dtype=np.bool_)
        if provider:
            keep &= self.types.provider == _index(self.providers, provider)
        if device:
            keep &= self.types.device == _index(self.device_names, device)
        return np.nonzero(keep)[0]

    def _device(self, index: int) -> Device | None:
        if index < 0:
            return None
        known = self.devices[index]
        if known is not None:
            return known
        # A device the table does not know: named, and nothing promised.
        return Device(self.device_names[index], "", "", 0, None, "", 0.0, "not in the device table")


def _unix_seconds(text: str) -> float:
    """The moment of an ISO day, at midnight UTC, or of an ISO time."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _known(value: Any) -> int | None:
    """A number of a column that has -1 where nobody says."""
    return None if value < 0 else int(value)


def _index(names: list[str], name: str) -> int:
    """Position of a name, or one that no entry has."""
    return names.index(name) if name in names else -2
