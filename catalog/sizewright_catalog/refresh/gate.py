"""Checks of a whole fetch against the last good version, on columns.

What a check holds back keeps its last good rows. What a source has said for a week is believed,
and so is what an operator accepts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from sizewright_catalog.columns import Ints, align, type_keys
from sizewright_catalog.refresh.limits import Limits, limits
from sizewright_catalog.refresh.quarantine import Quarantine
from sizewright_catalog.snapshot import Arrays, read_text
from sizewright_catalog.values import PRICE_KINDS, TERMS

SECONDS_PER_DAY = 86_400
LIST, ON_DEMAND, SPOT = PRICE_KINDS.index("list"), TERMS.index("on-demand"), TERMS.index("spot")


@dataclass(slots=True)
class Verdict:
    """What goes in of a fetch, and what stays of the last good rows in its place.

    `offers` and `types` are masks over the fetched rows; `kept` is one over the last good offers.
    `held_since` says since when each thing is held back, for the next refresh to know.
    """

    offers: Ints
    types: Ints
    kept: Ints
    quarantine: Quarantine
    held_since: dict[str, float] = field(default_factory=dict)


class Gate:
    """Holds fetched rows of one provider, each there once, against its last good ones.

    `regions` are those that were fetched, None for all there are.
    """

    def __init__(
        self,
        fresh: Arrays,
        last: Arrays,
        *,
        regions: Collection[str] | None,
        held_since: Mapping[str, float],
        now: float,
        accept: bool,
    ) -> None:
        self.fresh, self.last, self._regions = fresh, last, regions
        self._held_since, self._now, self._accept = held_since, now, accept
        self._limits: Limits = limits()
        ids, old_ids = align(fresh, last)
        _, self._in_fresh, self._in_last = np.intersect1d(
            ids, old_ids, assume_unique=True, return_indices=True
        )
        #: Regions and terms all of whose prices moved, and are believed.
        self._moved: set[int] = set()
        self.verdict = Verdict(
            offers=np.ones(len(ids), dtype=np.bool_),
            types=np.ones(len(fresh["type_vcpus"]), dtype=np.bool_),
            kept=np.zeros(len(old_ids), dtype=np.bool_),
            quarantine=Quarantine(),
        )

    def judge(self, *, filtered: bool) -> Verdict:
        """Runs every check. Of a filtered fetch nothing vanishes: what did not come stays."""
        self._types()
        self._medians()
        self._jumps()
        self._new_prices()
        if filtered:
            self.verdict.kept |= self._gone()
        else:
            self._vanished()
        return self.verdict

    def replaced(self) -> Ints:
        """Which last good offers have a fetched one in their place."""
        made = np.zeros(len(self.verdict.kept), dtype=np.bool_)
        made[self._in_last[self.verdict.offers[self._in_fresh]]] = True
        return made

    def _believed(self, what: str) -> bool:
        """Whether something odd is taken all the same; notes since when it has been odd."""
        since = min(self._held_since.get(what, self._now), self._now)
        believed = self._now - since >= self._limits.held_days * SECONDS_PER_DAY
        if self._accept or believed:
            return True
        self.verdict.held_since[what] = since
        return False

    def _types(self) -> None:
        """A type never changes: not its memory, not its devices."""
        held = {key: i for i, key in enumerate(type_keys(self.last))}
        devices = read_text(self.fresh["devices"]), read_text(self.last["devices"])
        for i, key in enumerate(type_keys(self.fresh)):
            j = held.get(key)
            reason = "" if j is None else self._type_change(i, j, devices)
            name = f"{key[0]}/{key[1]}"
            if reason and not self._believed(f"type {name} {reason}"):
                self.verdict.types[i] = False
                self.verdict.quarantine.hold(f"a type that changed: {reason}", name)

    def _type_change(self, i: int, j: int, devices: tuple[list[str], list[str]]) -> str:
        fresh, last = self.fresh, self.last
        names = [
            texts[code] if code >= 0 else "none"
            for texts, code in zip(
                devices, (int(fresh["type_device"][i]), int(last["type_device"][j])), strict=True
            )
        ]
        if names[0] != names[1]:
            return f"its device from {names[1]} to {names[0]}"
        for column, words in (("device_count", "devices"), ("slice", "slice of a device")):
            new, old = fresh[f"type_{column}"][i], last[f"type_{column}"][j]
            if new != old:
                return f"its {words} from {old:g} to {new:g}"
        new = float(fresh["type_host_nominal_bytes"][i])
        old = float(last["type_host_nominal_bytes"][j])
        if old and abs(new / old - 1) > self._limits.host_memory_tolerance:
            return f"its memory to {new / old:.3g} times what it was"
        return ""

    def _medians(self) -> None:
        """All list prices of a region and term moving at once is a unit or a currency."""
        ratio, groups = self._ratios(), self._groups(self.fresh)[self._in_fresh]
        listed = (self.fresh["offer_kind"][self._in_fresh] == LIST) & (
            self.last["offer_kind"][self._in_last] == LIST
        )
        listed &= self.fresh["offer_term"][self._in_fresh] != SPOT
        for group in np.unique(groups[listed]).tolist():
            mine = listed & (groups == group)
            if mine.sum() < self._limits.fewest_for_median:
                continue
            median = float(np.median(ratio[mine]))
            name = self._group_name(self.fresh, group)
            if 1 / self._limits.median_jump <= median <= self._limits.median_jump:
                continue
            if self._believed(f"median {name}"):
                self._moved.add(group)
            else:
                everyone = np.nonzero(self._groups(self.fresh) == group)[0]
                self._hold(everyone, f"all prices at {median:.3g} times what they were", name)
                self.verdict.kept |= self._groups(self.last) == self._same_group(group)

    def _jumps(self) -> None:
        """One price that jumped."""
        ratio = np.abs(np.log(self._ratios()))
        term = self.fresh["offer_term"][self._in_fresh]
        old_kind = self.last["offer_kind"][self._in_last]
        kind = self.fresh["offer_kind"][self._in_fresh]
        # What was or is not a list price may be off by as much as spot prices move.
        strict = (term != SPOT) & (kind == LIST) & (old_kind == LIST)
        allowed = np.where(strict, self._limits.list_price_jump, self._limits.spot_price_jump)
        groups = self._groups(self.fresh)[self._in_fresh]
        allowed[np.isin(groups, list(self._moved))] = np.inf
        jumped = (ratio > np.log(allowed)) & self.verdict.offers[self._in_fresh]
        for group in np.unique(groups[jumped]).tolist():
            mine = jumped & (groups == group)
            name = self._group_name(self.fresh, group)
            if not self._believed(f"jump {name}"):
                self._hold(self._in_fresh[mine], "a price that jumped", "")
                self.verdict.kept[self._in_last[mine]] = True

    def _new_prices(self) -> None:
        """A price nobody can compare with its own past must be one that its device can have."""
        medians = self._device_medians()
        new = self.verdict.offers.copy()
        new[self._in_fresh] = False
        at = np.nonzero(new & (self.fresh["offer_term"] == ON_DEMAND))[0]
        kinds = self.fresh["offer_type"][at]
        names = read_text(self.fresh["devices"])
        usual = np.array([*(medians.get(name, np.nan) for name in names), np.nan])
        each = self.fresh["offer_nanos"][at] / _devices_of(self.fresh)[kinds]
        with np.errstate(invalid="ignore", divide="ignore"):
            odd = np.abs(np.log(each / usual[self.fresh["type_device"][kinds]]))
        wrong = at[odd > np.log(self._limits.device_price_band)]
        if len(wrong) and not self._believed("new prices"):
            self._hold(wrong, "a new price far from what its device costs elsewhere", "")

    def _vanished(self) -> None:
        """A region that lost many of its types on a term has lost a page, not its machines."""
        last_groups, fresh_groups = self._groups(self.last), self._groups(self.fresh)
        gone = self._gone()
        fresh_types = self._types_of_last()
        for group in np.unique(last_groups[gone]).tolist():
            name = self._group_name(self.last, group)
            if self._regions is not None and name.rpartition(" ")[0] not in self._regions:
                continue
            mine = last_groups == group
            before = np.unique(self.last["offer_type"][mine])
            same = fresh_groups == self._same_group(group, from_last=True)
            left = np.isin(before, fresh_types[self.fresh["offer_type"][same]]).sum()
            few = len(before) < self._limits.fewest_for_share
            if few or left >= self._limits.smallest_share_left * len(before):
                continue
            if not self._believed(f"vanished {name}"):
                lost = mine & gone
                self.verdict.kept |= lost
                words = f"types that vanished at once: {left} left of {len(before)}"
                self.verdict.quarantine.hold(words, name, int(lost.sum()))

    def _gone(self) -> Ints:
        """Which last good offers did not come."""
        gone = np.ones(len(self.verdict.kept), dtype=np.bool_)
        gone[self._in_last] = False
        return gone

    def _ratios(self) -> Ints:
        new = self.fresh["offer_nanos"][self._in_fresh].astype(np.float64)
        return new / np.maximum(self.last["offer_nanos"][self._in_last], 1)

    def _groups(self, arrays: Arrays) -> Ints:
        """Region and term of every offer as one number."""
        return arrays["offer_region"].astype(np.int64) * len(TERMS) + arrays["offer_term"]

    def _group_name(self, arrays: Arrays, group: int) -> str:
        region, term = divmod(group, len(TERMS))
        return f"{read_text(arrays['regions'])[region]} {TERMS[term]}"

    def _same_group(self, group: int, *, from_last: bool = False) -> int:
        """The number of a group of one side on the other side; -1 where it has none."""
        ours, theirs = (self.last, self.fresh) if from_last else (self.fresh, self.last)
        region, term = divmod(group, len(TERMS))
        names, name = read_text(theirs["regions"]), read_text(ours["regions"])[region]
        return names.index(name) * len(TERMS) + term if name in names else -1

    def _types_of_last(self) -> Ints:
        """For each fetched type, its number in the last good version; -1 for a new one."""
        held = {key: i for i, key in enumerate(type_keys(self.last))}
        return np.array([held.get(key, -1) for key in type_keys(self.fresh)], dtype=np.int64)

    def _device_medians(self) -> dict[str, float]:
        """Median list price per device and hour of the last good version, by device name."""
        kinds = self.last["offer_type"]
        listed = (self.last["offer_term"] == ON_DEMAND) & (self.last["offer_currency"] == 0)
        device = self.last["type_device"][kinds]
        each = self.last["offer_nanos"] / _devices_of(self.last)[kinds]
        names = read_text(self.last["devices"])
        return {
            names[number]: float(np.median(each[listed & (device == number)]))
            for number in np.unique(device[listed]).tolist()
            if number >= 0
        }

    def _hold(self, at: Ints, reason: str, example: str) -> None:
        """Holds fetched offers back, each once."""
        mine = at[self.verdict.offers[at]]
        self.verdict.offers[mine] = False
        if not len(mine):
            return
        examples = [example] if example else [self._offer_name(int(i)) for i in mine[:3]]
        for one in examples:
            self.verdict.quarantine.hold(reason, one, 0)
        self.verdict.quarantine.hold(reason, examples[0], len(mine))

    def _offer_name(self, offer: int) -> str:
        kind = int(self.fresh["offer_type"][offer])
        region = read_text(self.fresh["regions"])[int(self.fresh["offer_region"][offer])]
        term = TERMS[int(self.fresh["offer_term"][offer])]
        return f"{read_text(self.fresh['type_name'])[kind]} in {region}, {term}"


def _devices_of(arrays: Arrays) -> Ints:
    """Whole devices of every type; NaN where it has none, which compares as nothing."""
    count: Ints = arrays["type_device_count"] * arrays["type_slice"]
    return np.where((count > 0) & (arrays["type_device"] >= 0), count, np.nan)
