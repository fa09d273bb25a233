"""Nothing cheaper that fits is missed and nothing unfit offered, over the whole bundled catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from every_offer import SlowPlanner, Way, offers_of
from random_questions import question
from sizewright.v1 import plan_pb2, sizing_service_pb2
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.values import Offer
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.planning.throughput import hours_of
from sizewright_server.planning.variants import Variant
from sizewright_server.service import Sizing
from sizewright_server.servicer import dispatch
from sizewright_server.wire.requests import read_recommend
from sizewright_server.wire.violations import RequestInvalid

TODAY = date(2026, 11, 24)
RECOMMEND = "/sizewright.v1.SizingService/Recommend"
#: Plans of a front that are shown.
MOST_ON_FRONT = 10


@dataclass(frozen=True)
class Goal:
    """What plans are ranked by: of a way that was looked at, of a plan that is shown, rounded."""

    slow: Callable[[Way], float]
    shown: Callable[[Any], float]
    rounded: float


GOALS = {
    "": Goal(lambda way: way.nanos, lambda plan: float(plan.cost_per_hour_nanos_usd), 0),
    "OBJECTIVE_COST_PER_JOB": Goal(
        lambda way: way.job_nanos, lambda plan: float(plan.cost_per_job_nanos_usd), 1
    ),
    "OBJECTIVE_TIME": Goal(lambda way: way.hours, lambda plan: float(plan.job_hours.best_hours), 0),
}


@pytest.fixture(scope="module")
def app() -> Sizing:
    return Sizing(Catalog.load(), today=lambda: TODAY)


@pytest.fixture(scope="module")
def offers(app: Sizing) -> list[Offer]:
    return offers_of(app.catalog)


@pytest.mark.parametrize("seed", range(24))
def test_a_question_is_answered_as_by_looking_at_every_offer(
    seed: int, app: Sizing, offers: list[Offer]
) -> None:
    hold_against_every_offer(seed, app, offers)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1600))
def test_hundreds_of_questions_are_answered_as_by_looking_at_every_offer(
    seed: int, app: Sizing, offers: list[Offer]
) -> None:
    hold_against_every_offer(seed, app, offers)


def hold_against_every_offer(seed: int, app: Sizing, offers: list[Offer]) -> None:
    """Asks a question of the planner and of plain loops; they must say the same."""
    asked = question(seed)
    request = ParseDict(asked, sizing_service_pb2.RecommendRequest())
    try:
        read = read_recommend(request, app.catalog)
    except RequestInvalid as refused:
        pytest.fail(f"seed {seed}: {refused.violations}")
    hours = hours_of(read.job)
    told = hours(Variant(prepare_any(read.workload))) if hours else None
    slow = SlowPlanner(asked, read.workload, TODAY, told)

    sent = dispatch(app, RECOMMEND, request)
    answer = sizing_service_pb2.RecommendResponse.FromString(sent)
    ways = list(slow.ways(offers))

    goal = GOALS[asked.get("objective", "")]
    _hold_the_list(answer, ways, asked["maxResults"], goal)
    _hold_the_counts(answer, ways)
    _hold_the_front(answer, ways)


def _hold_the_list(answer: Any, ways: list[Way], most: int, goal: Goal) -> None:
    best: dict[str, float] = {}
    for way in ways:
        value = goal.slow(way)
        best[way.offer.name] = min(value, best.get(way.offer.name, value))
    fitting = [p for p in answer.recommendations if p.verdict == plan_pb2.VERDICT_FITS]
    shown = [goal.shown(plan) for plan in fitting]
    finite = sorted(value for value in best.values() if value < float("inf"))

    assert shown == pytest.approx(finite[:most], rel=1e-9, abs=goal.rounded)
    for plan, value in zip(fitting, shown, strict=True):
        assert value == pytest.approx(best[plan.offer.name], rel=1e-9, abs=goal.rounded)
        nodes = {w.nodes for w in ways if w.offer.name == plan.offer.name}
        assert plan.node_count in nodes


def _hold_the_counts(answer: Any, ways: list[Way]) -> None:
    """Each offer fits or is counted under the constraint that turned it away."""
    fitting = len({way.offer.name for way in ways if way.hours < float("inf")})
    lost = sum(rejection.offer_count for rejection in answer.rejections)

    assert answer.fitting_offer_count == fitting
    assert answer.considered_offer_count == fitting + lost


def _hold_the_front(answer: Any, ways: list[Way]) -> None:
    """The front is what no other way beats in cost, free memory and nodes; a long one is spread."""
    goods = sorted({(way.nanos, way.nodes, -round(way.free_share, 9)) for way in ways})
    front: list[tuple[int, int, float]] = []
    for mine in goods:
        if not any(o[1] <= mine[1] and o[2] <= mine[2] for o in front):
            front.append(mine)
    shown = [
        (p.cost_per_hour_nanos_usd, p.node_count, -round(p.free_share, 9))
        for p in answer.pareto_front
    ]

    assert answer.pareto_front_count == len(front)
    assert len(shown) == min(len(front), MOST_ON_FRONT)
    if len(front) <= MOST_ON_FRONT:
        assert shown == front
        return
    ranks = [front.index(point) for point in shown]
    assert ranks == sorted(set(ranks))
    assert ranks[0] == 0
    assert min(point[2] for point in shown) == min(point[2] for point in front)
    fewest_nodes = min(point[1] for point in front)
    assert next(point for point in front if point[1] == fewest_nodes) in shown
    assert ranks[-1] == len(front) - 1
    # Seven runs at least are halves of one no shorter than the longest that is left.
    longest = max(after - before for before, after in pairwise(ranks))
    assert longest <= 2 * (len(front) - 1) / 7 + 1
