"""Answers are joined of pieces: nothing is lost, and the same question gives the same bytes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from datetime import date

import pytest

from running_server import EXAMPLES, example
from sizewright.v1 import catalog_pb2, estimate_pb2, plan_pb2
from sizewright.v1.sizing_service_pb2 import RecommendResponse
from sizewright_server.engines import bundled_sizing
from sizewright_server.service import Sizing
from sizewright_server.servicer import dispatch
from sizewright_server.wire.fragments import Fragments, embedded
from sizewright_server.wire.machines import offer_message

RECOMMEND = "/sizewright.v1.SizingService/Recommend"
NAMES = ("llama3-8b-sft", "llama3-8b-qlora", "llama3-70b-vllm", "xgboost-tabular")
#: Prints the digest of every answer, each asked for twice.
ASK = """
import hashlib
from sizewright_client import load_request
from sizewright_server.engines import bundled_sizing
from sizewright_server.servicer import dispatch
app = bundled_sizing()
for file in {files!r}:
    request = load_request(file)
    request.explain = True
    for _ in range(2):
        answer = dispatch(app, {method!r}, request)
        print(hashlib.sha256(answer).hexdigest())
"""


@pytest.fixture(scope="module")
def app() -> Sizing:
    return bundled_sizing()


@pytest.mark.parametrize("name", NAMES)
def test_a_joined_answer_is_the_message_its_parts_say(name: str, app: Sizing) -> None:
    request = example(name)
    request.explain, request.max_results = True, 5
    answer = RecommendResponse.FromString(dispatch(app, RECOMMEND, request))

    assert [plan.rank for plan in answer.recommendations] == list(range(1, 6))
    for plan in [*answer.recommendations, *answer.pareto_front]:
        usable = {pool.pool: pool.usable_bytes for pool in plan.pools}
        kind = plan.offer.instance_type
        host = kind.host_memory.usable_bytes
        assert usable[estimate_pb2.POOL_HOST] == host
        price = plan.offer.price.per_hour_nanos_usd
        assert plan.cost_per_hour_nanos_usd == price * plan.node_count
        assert plan.verdict
        assert plan.reasons
        assert plan.layout.gpus >= 1
        codes = [warning.code for warning in plan.warnings]
        assert ("spot" in codes) == (plan.offer.term == catalog_pb2.PURCHASE_TERM_SPOT)
    assert all(plan.estimate.layout == plan.layout for plan in answer.recommendations)
    assert answer.catalog.version == app.catalog.version
    assert answer.considered_offer_count == app.catalog.offer_count


def test_an_answer_given_before_is_not_given_again_when_prices_are_asked_for_otherwise(
    app: Sizing,
) -> None:
    request = example("llama3-8b-sft")
    first = RecommendResponse.FromString(dispatch(app, RECOMMEND, request))
    limit = first.recommendations[3].cost_per_hour_nanos_usd
    request.constraints.max_cost_per_hour_nanos_usd = limit
    second = RecommendResponse.FromString(dispatch(app, RECOMMEND, request))

    costs = [plan.cost_per_hour_nanos_usd for plan in second.recommendations]
    assert costs
    assert max(costs) <= limit
    assert second.recommendations[0] == first.recommendations[0]
    assert "budget" in {lost.constraint for lost in second.rejections}


def test_processes_with_other_hash_seeds_answer_the_same_bytes() -> None:
    files = [str(EXAMPLES / f"{name}.yaml") for name in NAMES]
    script = ASK.format(files=files, method=RECOMMEND)
    told = []
    for seed in ("1", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
        )
        told.append(done.stdout.split())

    assert told[0] == told[1]
    assert len(told[0]) == 2 * len(NAMES)
    assert told[0][::2] == told[0][1::2], "a workload that was seen before is answered alike"


def test_a_piece_is_made_once_of_each_value_and_goes_with_it(app: Sizing) -> None:
    made: list[str] = []

    def make(offer: object) -> bytes:
        made.append("once")
        return b"x" * 300

    pieces: Fragments[object] = Fragments(make, most=4)
    offer = app.catalog.offer(7)

    assert pieces.of(offer) == pieces.of(offer)
    assert made == ["once"]
    del offer
    gc.collect()
    pieces.of(app.catalog.offer(7))
    assert made == ["once", "once"]


def test_a_field_is_read_back_whatever_its_length(app: Sizing) -> None:
    offer = offer_message(app.catalog.offer(7), date(2026, 11, 25))
    for length in (0, 1, 127, 128, 20_000, 3_000_000):
        offer.commitment = "c" * length
        field = embedded(plan_pb2.Recommendation.OFFER_FIELD_NUMBER, offer.SerializeToString())

        assert plan_pb2.Recommendation.FromString(field).offer == offer
