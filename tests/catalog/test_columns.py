"""Columns of versions: cut apart and merged they are the same version; differences add up."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewright_catalog.columns import align, fit, merge, select
from sizewright_catalog.diff import Difference
from sizewright_catalog.rows import OfferRow, TypeRow
from sizewright_catalog.snapshot import Arrays, content_hash, read_text, text_array
from sizewright_catalog.staging import Staging
from sizewright_catalog.values import AVAILABILITIES

PROVIDERS, TYPES, REGIONS = ("one", "two"), ("a", "b", "c"), ("east", "west")

offers = st.builds(
    OfferRow,
    provider=st.sampled_from(PROVIDERS),
    type=st.sampled_from(TYPES),
    region=st.sampled_from(REGIONS),
    zones=st.sampled_from(["", "east-1 east-2"]),
    term=st.sampled_from(["on-demand", "spot", "committed"]),
    per_hour_nanos=st.integers(1, 2**62),
    currency=st.sampled_from(["USD", "CNY"]),
    kind=st.sampled_from(["list", "estimate", "composed"]),
    day=st.dates(date(2024, 1, 1), date(2026, 12, 31)).map(str)
    | st.integers(0, 86_399).map(lambda s: f"2026-11-24T{timedelta(seconds=s)!s:0>8}+00:00"),
    source=st.sampled_from(["list", "history"]),
    zone=st.sampled_from(["", "east-1", "east-2"]),
    commitment=st.sampled_from(["", "reserved-1y"]),
    availability=st.sampled_from(["available", "reservation-only"]),
)
catalogs = st.lists(offers, max_size=30)


def staged(rows: list[OfferRow]) -> Arrays:
    """Every type of every provider, and the offers."""
    staging = Staging()
    for provider in PROVIDERS:
        for name in TYPES:
            staging.add_type(TypeRow(provider, name, 4, "x86_64", 2**34, 2**33, False))
    for row in rows:
        staging.add_offer(row)
    return staging.arrays()


def version(rows: list[OfferRow]) -> Arrays:
    return merge([staged(rows)])[0]


@settings(max_examples=30, deadline=None)
@given(catalogs, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_change_a_version(rows: list[OfferRow], chance: Random) -> None:
    shuffled = list({(r.type, r.region, r.zone, r.term, r.commitment, r.currency, r.provider): r
                     for r in rows}.values())  # fmt: skip
    before = content_hash(version(shuffled))
    chance.shuffle(shuffled)

    assert content_hash(version(shuffled)) == before


@settings(max_examples=30, deadline=None)
@given(catalogs, st.lists(st.booleans(), min_size=30, max_size=30))
def test_a_version_cut_in_two_and_merged_is_the_same_version(
    rows: list[OfferRow], sides: list[bool]
) -> None:
    whole = version(rows)
    mask = np.array(sides[: len(whole["offer_type"])], dtype=np.bool_)
    everything = np.ones(len(whole["type_vcpus"]), dtype=np.bool_)

    merged, twice = merge([select(whole, mask, everything), select(whole, ~mask, everything)])

    assert content_hash(merged) == content_hash(whole)
    assert twice == 0


@settings(max_examples=30, deadline=None)
@given(catalogs)
def test_an_offer_that_comes_twice_is_kept_once_at_its_lower_price(rows: list[OfferRow]) -> None:
    dearer = [replace(row, per_hour_nanos=row.per_hour_nanos + 1) for row in rows]

    assert content_hash(version(rows + dearer)) == content_hash(version(rows))
    assert content_hash(version(dearer + rows)) == content_hash(version(rows))


@settings(max_examples=30, deadline=None)
@given(catalogs, catalogs)
def test_a_difference_counts_every_offer_once(
    before: list[OfferRow], after: list[OfferRow]
) -> None:
    old, new = version(before), version(after)
    difference = Difference(old, new)
    back = Difference(new, old)

    common = len(difference.in_after)
    assert common + len(difference.added) == len(new["offer_type"])
    assert common + len(difference.removed) == len(old["offer_type"])
    assert [(c.added, c.removed, c.dearer, c.cheaper) for c in difference.changes()] == [
        (c.removed, c.added, c.cheaper, c.dearer) for c in back.changes()
    ]


@settings(max_examples=30, deadline=None)
@given(catalogs, catalogs)
def test_the_same_offer_has_one_identity_in_both_versions(
    before: list[OfferRow], after: list[OfferRow]
) -> None:
    old, new = version(before), version(after)
    ids, others = align(old, new)

    assert len(set(ids.tolist())) == len(ids)
    names = dict(zip(ids.tolist(), _names(old), strict=True))
    for number, name in zip(others.tolist(), _names(new), strict=True):
        assert names.get(number, name) == name


def test_a_version_that_differs_in_nothing_has_no_changes() -> None:
    made = version([])

    assert Difference(made, made).changes() == []


@pytest.mark.parametrize("texts", [[], [""], ["", "a"], ["a", "", "b"], ["é", "漢字 x"]])
def test_texts_come_back_as_they_went_in(texts: list[str]) -> None:
    assert read_text(text_array(texts)) == texts


def test_a_text_with_a_line_end_is_refused() -> None:
    with pytest.raises(ValueError, match="one line"):
        text_array(["a\nb"])


@pytest.mark.parametrize(
    ("values", "dtype"), [([128], np.int8), ([1.5], np.int32), ([-1], np.uint8)]
)
def test_a_value_that_does_not_fit_its_column_is_refused(
    values: list[float], dtype: type[np.generic]
) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        fit(values, dtype)


def test_a_row_that_cannot_be_staged_leaves_no_trace() -> None:
    staging = Staging()
    staging.add_type(TypeRow("one", "a", 4, "x86_64", 2**34, 2**33, False))
    with pytest.raises(OverflowError):
        staging.add_offer(
            OfferRow("one", "a", "east", "", "on-demand", 2**64, "USD", "list", "2026-01-01", "s")
        )

    arrays = staging.arrays()
    assert {len(column) for name, column in arrays.items() if name.startswith("offer_")} == {0}


def test_types_that_none_offers_are_unpriced() -> None:
    marks = version([])["type_availability"]

    assert {AVAILABILITIES[i] for i in marks.tolist()} == {"unpriced"}


def _names(arrays: Arrays) -> list[tuple[object, ...]]:
    """What makes each offer itself, in words."""
    types = read_text(arrays["type_name"])
    providers = read_text(arrays["providers"])
    texts = {
        name: read_text(arrays[name]) for name in ("regions", "zones", "commitments", "currencies")
    }
    return [
        (
            providers[int(arrays["type_provider"][kind])],
            types[kind],
            texts["regions"][int(arrays["offer_region"][i])],
            texts["zones"][int(arrays["offer_zone"][i])],
            int(arrays["offer_term"][i]),
            texts["commitments"][int(arrays["offer_commitment"][i])],
            texts["currencies"][int(arrays["offer_currency"][i])],
        )
        for i, kind in enumerate(arrays["offer_type"].tolist())
    ]
