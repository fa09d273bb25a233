"""From what was fetched and the last good version to the next one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.columns import align, merge, select, type_keys
from sizewright_catalog.refresh.gate import Gate, Verdict
from sizewright_catalog.rows import TypeRow
from sizewright_catalog.snapshot import Arrays, metadata
from sizewright_catalog.values import AVAILABILITIES, CPU_ARCHITECTURES

RETIRED = AVAILABILITIES.index("retired")


@dataclass(frozen=True, slots=True)
class LastGood:
    """The last good version: one provider's rows, and everybody else's."""

    provider: str
    catalog: Catalog
    mine: Arrays
    others: Arrays

    @classmethod
    def of(cls, catalog: Catalog, provider: str) -> LastGood:
        """Splits a version."""
        names = catalog.providers
        number = names.index(provider) if provider in names else -1
        types = catalog.types.provider == number
        offers = types[catalog.offers.type]
        return cls(
            provider,
            catalog,
            select(catalog.arrays, offers, types),
            select(catalog.arrays, ~offers, ~types),
        )

    def without_rows(self) -> LastGood:
        """The version alone, without the copies of its rows."""
        return replace(self, mine={}, others={})

    def type_row(self, name: str) -> TypeRow | None:
        """The last good row of a type, for when it does not come; None where there is none."""
        try:
            index = self.catalog.find_type(self.provider, name)
        except KeyError:
            return None
        columns, arrays = self.catalog.types, self.catalog.arrays
        device = int(columns.device[index])
        return TypeRow(
            provider=self.provider,
            type=name,
            vcpus=int(columns.vcpus[index]),
            cpu_architecture=CPU_ARCHITECTURES[int(columns.cpu[index])],
            host_nominal_bytes=int(columns.host_nominal_bytes[index]),
            host_visible_bytes=int(arrays["type_host_visible_bytes"][index]),
            host_measured=bool(arrays["type_host_measured"][index]),
            device=self.catalog.device_names[device] if device >= 0 else "",
            device_count=int(columns.device_count[index]),
            slice=float(columns.slice[index]),
            gpu_usable_bytes=int(columns.gpu_usable_bytes[index]),
            unsizable_reason=self.catalog.reasons[int(columns.reason[index])],
        )


def judge(
    fresh: Arrays,
    refused: Arrays,
    last: LastGood,
    regions: Collection[str] | None,
    *,
    held_since: dict[str, float],
    now: float,
    accept: bool,
    filtered: bool,
) -> Verdict:
    """What of a fetch goes in; what was not fetched, or asked for, stays as it was.

    `regions` are those that were fetched, None for all there are; `refused` are offers that came
    with a price that is wrong in itself.
    """
    gate = Gate(fresh, last.mine, regions=regions, held_since=held_since, now=now, accept=accept)
    verdict = gate.judge(filtered=filtered)
    wrong, held = align(refused, last.mine)
    verdict.kept |= np.isin(held, wrong)
    verdict.kept &= ~gate.replaced()
    if regions is not None:
        names = np.array(last.catalog.regions, dtype=object)
        fetched = np.isin(names.astype(str), list(regions))
        verdict.kept |= ~fetched[last.mine["offer_region"]]
    return verdict


def next_version(
    fresh: Arrays, verdict: Verdict, last: LastGood, *, complete: bool, whole: bool
) -> Arrays:
    """The columns of the next version; types that did not come are kept.

    They are marked as retired when the fetch was complete and they had offers that went with it,
    or, where everything there is was fetched `whole`, in any case.
    """
    nothing = np.zeros(len(last.mine["offer_type"]), dtype=np.bool_)
    keys = type_keys(fresh)
    held = {key for key, goes_in in zip(keys, verdict.types.tolist(), strict=True) if not goes_in}
    old_keys = type_keys(last.mine)
    everything = np.ones(len(keys), dtype=np.bool_)
    kept_types = np.ones(len(old_keys), dtype=np.bool_)
    stay = np.array([key in held for key in old_keys], dtype=np.bool_)
    kept = dict(select(last.mine, verdict.kept, kept_types))
    if complete:
        came = set(keys)
        gone = np.array([key not in came for key in old_keys], dtype=np.bool_)
        if not whole:
            offered = np.zeros(len(old_keys), dtype=np.bool_)
            offered[last.mine["offer_type"]] = True
            gone &= offered
        gone[last.mine["offer_type"][verdict.kept]] = False
        kept["type_availability"] = np.where(gone, RETIRED, kept["type_availability"])
    parts = [
        select(last.mine, nothing, stay),  # rows of types whose change is held back come first
        select(fresh, verdict.offers, everything),
        kept,
        last.others,
    ]
    merged, _ = merge(parts)
    return merged


def next_metadata(
    arrays: Arrays, last: LastGood, dropped: dict[str, int], build_time: str
) -> dict[str, object]:
    """What the next version says of itself; what it says of other providers carries over."""
    mine = f"{last.provider}: "
    kept = {k: n for k, n in last.catalog.dropped.items() if not k.startswith(mine)}
    as_of = {**last.catalog.meta["as_of"], last.provider: build_time}
    new = {k if k.startswith(mine) else mine + k: n for k, n in dropped.items()}
    return metadata(arrays, kept | new, build_time, as_of)
