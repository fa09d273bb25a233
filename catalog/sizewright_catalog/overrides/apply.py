"""Puts overrides over a version's prices: new columns of a few, the rest shared with the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from sizewright_catalog.catalog import EPOCH_DAY, Catalog
from sizewright_catalog.columns import OFFER_COLUMNS
from sizewright_catalog.overrides.rules import Match, Overrides, Rule
from sizewright_catalog.snapshot import text_array
from sizewright_catalog.values import PRICE_KINDS, TERMS

Mask = NDArray[np.bool_]
#: Columns that a rule writes.
CHANGED = (
    "offer_nanos",
    "offer_day",
    "offer_second",
    "offer_kind",
    "offer_source",
    "offer_currency",
)


def apply_overrides(catalog: Catalog, overrides: Overrides, today: date) -> Catalog:
    """The catalog as its owner pays for it today; the catalog itself where no rule matches.

    The source of a changed price names the rule, and for a discount the source it is off. A
    contract's price is of kind "override" and of today, as long as the contract holds. A discount
    keeps the day of the price it is off, and is an "override" where that is listed: one off an
    estimate is an estimate still.
    """
    columns = {name: catalog.arrays[name].copy() for name in CHANGED}
    sources = list(catalog.sources)
    changed = False
    for rule, chosen in _claims(catalog, overrides, today):
        if not len(chosen):
            continue
        changed = True
        _put(columns, chosen, rule, today)
        _put_sources(columns["offer_source"], chosen, rule, sources)
    return _ordered(catalog, columns, sources) if changed else catalog


@dataclass(frozen=True, slots=True)
class Effect:
    """What a rule changes today: how many offers, and the cheapest of them before and after."""

    rule: str
    in_force: bool
    offer_count: int
    example: str = ""
    listed_nanos: int = 0
    override_nanos: int = 0


def effects(catalog: Catalog, overrides: Overrides, today: date) -> tuple[Effect, ...]:
    """What each rule changes of a catalog that has no overrides yet."""
    made = []
    for rule, chosen in _claims(catalog, overrides, today):
        if not len(chosen):
            made.append(Effect(rule.name, rule.holds_on(today), 0))
            continue
        cheapest = int(chosen[np.argmin(catalog.offers.nanos[chosen])])
        listed = int(catalog.offers.nanos[cheapest])
        offer = catalog.offer(cheapest)
        place = offer.zone or offer.region
        example = (
            f"{offer.instance_type.provider}/{offer.instance_type.type} {offer.term} in {place}"
        )
        priced = rule.price_nanos(listed)
        made.append(Effect(rule.name, True, len(chosen), example, listed, priced))
    return tuple(made)


def _claims(
    catalog: Catalog, overrides: Overrides, today: date
) -> Iterator[tuple[Rule, NDArray[np.int64]]]:
    """Each rule with the offers that are its own: those it matches and no rule before it does."""
    free = np.ones(catalog.offer_count, dtype=np.bool_)
    for rule in overrides.overrides:
        chosen = np.array([], dtype=np.int64)
        if rule.holds_on(today):
            chosen = np.nonzero(free & matching(catalog, rule.match))[0]
            free[chosen] = False
        yield rule, chosen


def matching(catalog: Catalog, match: Match) -> Mask:
    """The offers that a pattern is about."""
    types, offers = catalog.types, catalog.offers
    of_type = _named(catalog.providers, match.provider)[types.provider]
    of_type &= _named(catalog.type_names, match.type)
    if match.device != "*":
        # A type without a device has -1, which must not find the last one.
        named = np.append(_named(catalog.device_names, match.device), False)
        of_type &= named[types.device]
    found: Mask = of_type[offers.type]
    found &= _named(catalog.regions, match.region)[offers.region]
    if match.zone != "*":
        found &= _named(catalog.zones, match.zone)[offers.zone]
    if match.term != "*":
        found &= offers.term == TERMS.index(match.term)
    if match.commitment != "*":
        found &= _named(catalog.commitments, match.commitment)[offers.commitment]
    return found


def _named(names: Sequence[str], pattern: str) -> Mask:
    return np.array([fnmatchcase(name, pattern) for name in names], dtype=np.bool_)


def _put(
    columns: dict[str, NDArray[np.int64]], chosen: NDArray[np.int64], rule: Rule, today: date
) -> None:
    """The rule's prices for the chosen offers. Money is exact: each price is reckoned as an int."""
    listed, place = np.unique(columns["offer_nanos"][chosen], return_inverse=True)
    priced = np.array([rule.price_nanos(int(value)) for value in listed], dtype=np.int64)
    columns["offer_nanos"][chosen] = priced[place]
    firm = chosen
    if rule.per_hour is None:
        firm = chosen[columns["offer_kind"][chosen] == PRICE_KINDS.index("list")]
    columns["offer_kind"][firm] = PRICE_KINDS.index("override")
    if rule.per_hour is not None:
        columns["offer_currency"][chosen] = 0
        columns["offer_day"][chosen] = (today - EPOCH_DAY).days
        columns["offer_second"][chosen] = 0


def _put_sources(
    column: NDArray[np.int64], chosen: NDArray[np.int64], rule: Rule, sources: list[str]
) -> None:
    """Where each price is from now; new sources are added to the list."""
    note = " ".join(rule.note.split())
    words = f"override {rule.name}: {note}" if note else f"override {rule.name}"
    if rule.per_hour is not None:
        column[chosen] = len(sources)
        sources.append(words)
        return
    before = column[chosen]
    for number in np.unique(before).tolist():
        column[chosen[before == number]] = len(sources)
        sources.append(f"{words}, off {sources[number]}")


def _ordered(
    catalog: Catalog, columns: dict[str, NDArray[np.int64]], sources: list[str]
) -> Catalog:
    """A catalog of the changed columns, its offers by type and price again."""
    arrays = dict(catalog.arrays) | dict(columns)
    order = np.lexsort((arrays["offer_nanos"], arrays["offer_type"]))
    for name in OFFER_COLUMNS:
        arrays[name] = arrays[name][order]
    arrays["sources"] = text_array(sources)
    return Catalog(arrays, catalog.meta)
