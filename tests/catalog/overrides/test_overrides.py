"""Private prices: what a file may say, and what the catalog is then."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.overrides import (
    Overrides,
    OverridesError,
    apply_overrides,
    read_overrides,
)
from sizewright_catalog.overrides.rules import Rule
from sizewright_catalog.values import PRICE_KINDS

TODAY = date(2026, 11, 24)
P5 = {"provider": "aws", "type_name": "p5.48xlarge", "region": "us-east-1"}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load()


def rules(*entries: dict[str, object]) -> Overrides:
    return Overrides.model_validate({"overrides": entries})


def prices(catalog: Catalog, term: str = "on-demand") -> list[tuple[int, str, str, date]]:
    found = [catalog.offer(i) for i in catalog.offers_where(**P5, terms=(term,)).tolist()]
    return [(o.price.per_hour_nanos, o.price.kind, o.price.source, o.price.day) for o in found]


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_discount_is_off_the_listed_price_and_keeps_its_day(catalog: Catalog) -> None:
    ((listed, _, _, day),) = prices(catalog)
    made = apply_overrides(
        catalog,
        rules({"name": "edp", "match": {"provider": "aws"}, "discount_percent": "12.5"}),
        TODAY,
    )
    assert listed == 55_040_000_000
    ((_, _, source, _),) = prices(catalog)
    assert prices(made) == [(48_160_000_000, "override", f"override edp, off {source}", day)]


def test_a_discount_off_an_estimate_is_an_estimate_still(catalog: Catalog) -> None:
    made = apply_overrides(
        catalog,
        rules({"name": "edp", "match": {"provider": "aws"}, "discount_percent": 10}),
        TODAY,
    )
    ((before, _, _, _),) = prices(catalog, "spot")
    ((after, kind, source, _),) = prices(made, "spot")
    assert after == before * 9 // 10
    assert kind == "estimate"
    assert source.startswith("override edp, off ")


def test_a_contract_price_is_of_today(catalog: Catalog) -> None:
    made = apply_overrides(
        catalog,
        rules(
            {
                "name": "h100",
                "match": {"device": "H100*", "region": "us-*", "term": "on-demand"},
                "per_hour": "31.20",
                "note": "order 4711",
            }
        ),
        TODAY,
    )
    assert prices(made) == [(31_200_000_000, "override", "override h100: order 4711", TODAY)]
    # Spot offers are another term, and are as they were.
    assert prices(made, "spot") == prices(catalog, "spot")


def test_the_first_rule_that_matches_holds(catalog: Catalog) -> None:
    made = apply_overrides(
        catalog,
        rules(
            {"name": "one", "match": {"type": "p5.*"}, "multiply": "0.5"},
            {"name": "two", "match": {"provider": "aws"}, "multiply": "0.9"},
        ),
        TODAY,
    )
    ((nanos, _, source, _),) = prices(made)
    assert nanos == 27_520_000_000
    assert source.startswith("override one, off ")


@pytest.mark.parametrize(
    ("begins", "ends", "holds"),
    [
        (None, None, True),
        (date(2026, 11, 24), date(2026, 11, 24), True),
        (date(2026, 11, 25), None, False),
        (None, date(2026, 11, 23), False),
    ],
)
def test_a_rule_holds_between_its_days(
    catalog: Catalog, begins: date | None, ends: date | None, holds: bool
) -> None:
    one = rules(
        {"name": "a", "match": {"type": "p5.*"}, "multiply": 2, "from": begins, "until": ends}
    )
    assert (prices(apply_overrides(catalog, one, TODAY)) != prices(catalog)) is holds


def test_a_rule_that_matches_nothing_changes_nothing(catalog: Catalog) -> None:
    nothing = rules({"name": "a", "match": {"type": "p99.*"}, "multiply": 2})
    assert apply_overrides(catalog, nothing, TODAY) is catalog


def test_offers_stay_by_type_and_price_and_none_is_lost(catalog: Catalog) -> None:
    half = rules({"name": "half", "match": {"region": "eu-*"}, "multiply": "0.5"})
    made = apply_overrides(catalog, half, TODAY)
    assert made.offer_count == catalog.offer_count
    kind, nanos = made.offers.type, made.offers.nanos
    same = kind[1:] == kind[:-1]
    assert (np.diff(kind) >= 0).all()
    assert (nanos[1:][same] >= nanos[:-1][same]).all()
    changed = made.offers.kind == PRICE_KINDS.index("override")
    regions = {made.regions[i] for i in np.unique(made.offers.region[changed])}
    assert regions
    assert all(name.startswith("eu-") for name in regions)


def test_the_catalog_itself_is_never_changed(catalog: Catalog) -> None:
    before = catalog.offers.nanos.copy()
    apply_overrides(catalog, rules({"name": "a", "match": {"term": "spot"}, "multiply": 3}), TODAY)
    assert (catalog.offers.nanos == before).all()


@given(nanos=st.integers(1, 10**14), percent=st.decimals("0.01", "99.99", places=2))
def test_a_discount_is_exact_to_the_nano(nanos: int, percent: object) -> None:
    one = Rule.model_validate(
        {"name": "a", "match": {"term": "spot"}, "discount_percent": str(percent)}
    )
    hundredths = 10_000 - round(float(str(percent)) * 100)
    assert abs(one.price_nanos(nanos) * 10_000 - nanos * hundredths) <= 5_000


def test_a_file_is_read_as_written(tmp_path: Path) -> None:
    path = written(
        tmp_path / "prices.yaml",
        "overrides:\n"
        "- name: contract\n"
        "  match: {provider: gcp, type: a3-highgpu-8g}\n"
        "  per_hour: 61.123456789\n"
        "  from: 2026-01-01\n",
    )
    (rule,) = read_overrides(path).overrides
    assert rule.price_nanos(1) == 61_123_456_789
    assert rule.valid_from == date(2026, 1, 1)


def test_an_empty_file_has_no_rules(tmp_path: Path) -> None:
    assert read_overrides(written(tmp_path / "empty.yaml", "")).overrides == ()


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path / "wrong.yaml",
        "overrides:\n"
        "- {name: Big One, match: {}, discount_percent: 120}\n"
        "- {name: b, match: {region: x, zones: y}, per_hour: 1, multiply: 2}\n"
        "- {name: c, match: {term: reserved}, per_hour: -1}\n"
        "- {name: d, match: {type: a}, multiply: 1, from: 2026-02-01, until: 2026-01-01}\n",
    )
    with pytest.raises(OverridesError) as wrong:
        read_overrides(path)
    text = "\n".join(wrong.value.problems)
    for field in (
        "overrides.0.name",
        "overrides.0.match: needs a pattern",
        "overrides.0.discount_percent",
        "overrides.1.match.zones: is not known",
        "overrides.2.match.term",
        "overrides.2.per_hour",
        "overrides.3: ends on 2026-01-01",
    ):
        assert field in text, text


@pytest.mark.parametrize("text", ["overrides: [", "- a\n- b", "rules: []", "5"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(OverridesError, match=r"none\.yaml"):
        read_overrides(written(tmp_path / "none.yaml", text))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(OverridesError, match="No such file"):
        read_overrides(tmp_path / "nowhere.yaml")


def test_two_rules_of_a_name_are_refused() -> None:
    one = {"name": "a", "match": {"term": "spot"}, "multiply": 1}
    with pytest.raises(ValueError, match="same name: a"):
        rules(one, one)
