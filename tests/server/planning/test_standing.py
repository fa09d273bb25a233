"""What is kept between questions changes no answer: neither who competes nor who stands where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from running_server import example
from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.preparation import AnyPrepared, prepare_any
from sizewright_server.planning import eligibility, ranking
from sizewright_server.planning.index import KEPT_CONDITIONS, OfferIndex
from sizewright_server.planning.plan import Constraints
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.planning.searching import MOST_KEPT_NODES, KeptSearches
from sizewright_server.wire.plans import recommend_response
from sizewright_server.wire.requests import read_recommend

TODAY = date(2026, 11, 25)
DOLLAR = 10**9
NAMES = ("llama3-8b-sft", "llama3-8b-chat", "xgboost-tabular")
#: As few offers in order that answers reach beyond them, and as many as there are by default.
ORDERED = (48, ranking.ORDERED_OFFERS)

CONSTRAINTS: st.SearchStrategy[Constraints] = st.builds(
    Constraints,
    providers=st.sampled_from([(), ("aws",), ("aws", "gcp", "azure"), ("lambda", "runpod")]),
    regions=st.sampled_from([(), ("us-east-1",), ("us-east-1", "us-central1", "eastus")]),
    purchase=st.sampled_from([("on-demand", "spot"), ("spot",), ("on-demand",)]),
    max_nodes=st.integers(1, 2),
    min_gpus=st.sampled_from([0, 2]),
    max_gpus=st.sampled_from([None, 8]),
    exclude_devices=st.sampled_from([(), ("H100-SXM",)]),
    min_vcpus=st.sampled_from([0, 64]),
    headroom=st.sampled_from([0.0, 0.2]),
    max_price_age_days=st.sampled_from([None, 30.0, 45.0, 120.0, 1000.0, 2000.0]),
    flag_stale_prices=st.booleans(),
    max_cost_per_hour_nanos_usd=st.one_of(
        st.none(), st.sampled_from([n * DOLLAR for n in (1, 5, 20, 60, 100, 1000)])
    ),
    list_prices_only=st.booleans(),
    max_interruption=st.sampled_from([None, 0.1]),
    min_network_gbps=st.sampled_from([0.0, 100.0]),
    allow_unknown_network=st.booleans(),
)


class World:
    """One workload over the bundled offers, and all that is kept of what was asked of it."""

    def __init__(self, name: str) -> None:
        app = bundled_sizing()
        workload = read_recommend(example(name), app.catalog).workload
        self.prepared: AnyPrepared = prepare_any(workload)
        self.catalog = app.catalog
        self.index: OfferIndex = app._index_of(workload)
        self.kept: KeptSearches = {}

    def told(self, asked: Constraints, most: int, *, kept: bool) -> bytes:
        """The answer, with what is kept or without anything."""
        if not kept:
            self.index.eligible.clear()
        searches = self.kept if kept else None
        question = Question(self.prepared, asked, most, TODAY, kept=searches)
        return recommend_response(recommend(question, self.index), (), self.catalog, TODAY)


@pytest.fixture(scope="module", params=NAMES)
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


@pytest.fixture(scope="module", params=ORDERED)
def ordered(request: pytest.FixtureRequest) -> Iterator[None]:
    patch: Any = pytest.MonkeyPatch()
    patch.setattr(ranking, "ORDERED_OFFERS", request.param)
    yield
    patch.undo()


@settings(max_examples=40, deadline=None)
@given(asked=st.lists(st.tuples(CONSTRAINTS, st.sampled_from([1, 10, 60])), min_size=1, max_size=6))
def test_what_is_kept_changes_no_answer(
    world: World, ordered: None, asked: list[tuple[Constraints, int]]
) -> None:
    world.kept.clear()
    told = [world.told(*one, kept=True) for one in asked]
    again = [world.told(*one, kept=True) for one in asked]

    assert told == again == [world.told(*one, kept=False) for one in asked]


@pytest.mark.parametrize(
    "other",
    [
        {"allow_unknown_network": True},
        {"headroom": 0.4},
        {"max_nodes": 1},
        {"min_nodes": 2},
        {"min_gpus": 5},
        {"max_gpus": 2},
    ],
    ids=str,
)
def test_what_shapes_a_search_has_a_search_of_its_own(world: World, other: dict[str, Any]) -> None:
    world.kept.clear()
    asked = Constraints(providers=("lambda", "runpod"), max_nodes=2)
    before = world.told(asked, 60, kept=True)
    after = world.told(replace(asked, **other), 60, kept=True)

    assert after == world.told(replace(asked, **other), 60, kept=False)
    assert before == world.told(asked, 60, kept=False)
    assert len(world.kept) == 2


def test_an_age_no_price_has_tells_nothing_apart_and_one_that_some_have_does(world: World) -> None:
    world.index.eligible.clear()
    for days in (2000.0, 3000.0, None):
        world.told(Constraints(max_price_age_days=days), 10, kept=True)
    assert len(world.index.eligible) == 1

    for days in (1.0, 2.0):
        world.told(Constraints(max_price_age_days=days), 10, kept=True)
    assert len(world.index.eligible) == 3


def test_what_is_kept_stays_bounded_whatever_numbers_are_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eligibility, "KEPT_SETS", 4)
    world.index.eligible.clear()
    for gbps in range(12):
        # No offer has such a network: sets of none of them count as well.
        world.told(Constraints(min_network_gbps=900_000.0 + gbps), 10, kept=True)
    assert len(world.index.eligible) <= 4

    world.index.eligible.clear()
    found = eligibility.eligible(world.index, Constraints(), (), TODAY)
    workload = world.prepared.workload
    for beside in range(3 * KEPT_CONDITIONS):
        host = replace(workload.host, other_processes_bytes=beside)
        other = replace(workload, host=host)
        eligibility.competing(world.index, found, other, (), disk=False)
    assert len(found.competitors) == KEPT_CONDITIONS


def test_a_search_over_many_nodes_is_not_kept(world: World) -> None:
    world.kept.clear()
    world.told(Constraints(max_nodes=MOST_KEPT_NODES + 1), 10, kept=True)
    assert not world.kept

    world.told(Constraints(max_nodes=MOST_KEPT_NODES), 10, kept=True)
    assert len(world.kept) == 1
