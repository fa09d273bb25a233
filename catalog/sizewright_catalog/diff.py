"""How two versions differ: offers that came, went, or changed their price."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sizewright_catalog.columns import Ints, align
from sizewright_catalog.snapshot import Arrays, read_text
from sizewright_catalog.values import AVAILABILITIES, PRICE_KINDS, TERMS, PriceKind

RETIRED = AVAILABILITIES.index("retired")


@dataclass(frozen=True, slots=True)
class PriceChange:
    """One offer's price before and after, in nano-units; None where it was or is not there."""

    provider: str
    type: str
    region: str
    zone: str
    term: str
    commitment: str
    currency: str
    kind: PriceKind
    before_nanos: int | None
    after_nanos: int | None


@dataclass(frozen=True, slots=True)
class OfferChanges:
    """How a provider's offers and types differ."""

    provider: str
    added: int
    removed: int
    dearer: int
    cheaper: int
    added_types: tuple[str, ...]
    removed_types: tuple[str, ...]

    def __bool__(self) -> bool:
        return any((self.added, self.removed, self.dearer, self.cheaper)) or bool(
            self.added_types or self.removed_types
        )


class Difference:
    """Two versions held against each other; positions are those of each one's offers."""

    def __init__(self, before: Arrays, after: Arrays) -> None:
        self.before, self.after = before, after
        old, new = align(before, after)
        _, self.in_before, self.in_after = np.intersect1d(
            old, new, assume_unique=True, return_indices=True
        )
        self.removed = _others(len(old), self.in_before)
        self.added = _others(len(new), self.in_after)

    @cached_property
    def _moved(self) -> Ints:
        old = self.before["offer_nanos"][self.in_before]
        new = self.after["offer_nanos"][self.in_after]
        moved: Ints = np.sign(new - old)
        return moved

    def changes(self) -> list[OfferChanges]:
        """Provider by provider, by name; only those that changed."""
        providers = sorted(
            {*read_text(self.before["providers"]), *read_text(self.after["providers"])}
        )
        types = _types_by_provider(self.before), _types_by_provider(self.after)
        made = []
        for provider in providers:
            moved = self._moved[_owned(self.after, self.in_after, provider)]
            old, new = types[0].get(provider, set()), types[1].get(provider, set())
            change = OfferChanges(
                provider=provider,
                added=int(_owned(self.after, self.added, provider).sum()),
                removed=int(_owned(self.before, self.removed, provider).sum()),
                dearer=int((moved > 0).sum()),
                cheaper=int((moved < 0).sum()),
                added_types=tuple(sorted(new - old)),
                removed_types=tuple(sorted(old - new)),
            )
            if change:
                made.append(change)
        return made

    def largest(self, provider: str, count: int) -> list[PriceChange]:
        """The largest changes of price as a share, those of one provider where it is named."""
        at = np.nonzero(self._moved)[0]
        if provider:
            at = at[_owned(self.after, self.in_after[at], provider)]
        old = self.before["offer_nanos"][self.in_before[at]].astype(np.float64)
        new = self.after["offer_nanos"][self.in_after[at]].astype(np.float64)
        order = np.argsort(-np.abs(np.log(np.maximum(new, 1) / np.maximum(old, 1))), kind="stable")
        chosen = at[order[:count]]
        reader = _Reader(self.after)
        olds = self.before["offer_nanos"][self.in_before[chosen]].tolist()
        pairs = zip(olds, self.in_after[chosen].tolist(), strict=True)
        return [reader.change(i, old, int(self.after["offer_nanos"][i])) for old, i in pairs]

    def price_changes(self, provider: str, *, coming_and_going: bool) -> Iterator[PriceChange]:
        """Every change of a provider's prices, one at a time."""
        moved = np.nonzero(self._moved)[0]
        after, before = _Reader(self.after), _Reader(self.before)
        for at in moved[_owned(self.after, self.in_after[moved], provider)].tolist():
            i, j = int(self.in_before[at]), int(self.in_after[at])
            old, new = int(self.before["offer_nanos"][i]), int(self.after["offer_nanos"][j])
            yield after.change(j, old, new)
        if not coming_and_going:
            return
        for j in self.added[_owned(self.after, self.added, provider)].tolist():
            yield after.change(j, None, int(self.after["offer_nanos"][j]))
        for i in self.removed[_owned(self.before, self.removed, provider)].tolist():
            yield before.change(i, int(self.before["offer_nanos"][i]), None)


class _Reader:
    """The words of an offer."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._texts = {
            name: read_text(arrays[name])
            for name in ("providers", "type_name", "regions", "zones", "commitments", "currencies")
        }

    def change(self, offer: int, before: int | None, after: int | None) -> PriceChange:
        columns, texts = self._arrays, self._texts
        kind = int(columns["offer_type"][offer])
        return PriceChange(
            provider=texts["providers"][int(columns["type_provider"][kind])],
            type=texts["type_name"][kind],
            region=texts["regions"][int(columns["offer_region"][offer])],
            zone=texts["zones"][int(columns["offer_zone"][offer])],
            term=TERMS[int(columns["offer_term"][offer])],
            commitment=texts["commitments"][int(columns["offer_commitment"][offer])],
            currency=texts["currencies"][int(columns["offer_currency"][offer])],
            kind=PRICE_KINDS[int(columns["offer_kind"][offer])],
            before_nanos=before,
            after_nanos=after,
        )


def _others(count: int, found: Ints) -> Ints:
    mask = np.ones(count, dtype=np.bool_)
    mask[found] = False
    return np.nonzero(mask)[0]


def _owned(arrays: Arrays, offers: Ints, provider: str) -> Ints:
    """Which of some offers are a provider's."""
    names = read_text(arrays["providers"])
    number = names.index(provider) if provider in names else -1
    owned: Ints = arrays["type_provider"][arrays["offer_type"][offers]] == number
    return owned


def _types_by_provider(arrays: Arrays) -> dict[str, set[str]]:
    """Names of the types that are not retired."""
    providers = read_text(arrays["providers"])
    found: dict[str, set[str]] = {}
    columns = zip(
        arrays["type_provider"].tolist(),
        read_text(arrays["type_name"]),
        arrays["type_availability"].tolist(),
        strict=True,
    )
    for owner, name, mark in columns:
        if mark != RETIRED:
            found.setdefault(providers[owner], set()).add(name)
    return found
