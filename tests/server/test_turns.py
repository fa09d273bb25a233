"""One question computes at a time, and no short one waits for a long one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from running_server import (
    PATIENCE_SECONDS,
    example,
    long_batch,
    open_channel,
    running,
    target_of,
    wait_until,
)
from sizewright.v1 import catalog_pb2, catalog_service_pb2
from sizewright.v1.catalog_service_pb2_grpc import CatalogServiceStub
from sizewright.v1.sizing_service_pb2_grpc import SizingServiceStub
from sizewright_catalog.home import Home
from sizewright_catalog.locks import commit_lock
from sizewright_server.calls import Calls
from sizewright_server.questions import RecommendQuestion
from sizewright_server.service import Recommended, Sizing
from sizewright_server.turns import Turns


def test_a_turn_that_does_not_come_in_time_is_an_error_and_is_not_taken_later() -> None:
    turns = Turns()
    with turns.taken(long=False, seconds=1):
        with pytest.raises(TimeoutError), turns.taken(long=False, seconds=0.01):
            raise AssertionError("two questions compute at once")
        with turns.taken(long=True, seconds=0.01):
            pass

    with turns.taken(long=False, seconds=0.01):
        pass


def test_a_turn_is_given_back_by_a_question_that_fails() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns.taken(long=True, seconds=1):
        raise KeyError

    with turns.taken(long=True, seconds=0.01):
        pass


def test_a_short_question_is_answered_while_a_long_one_is_worked_on() -> None:
    with running() as server, open_channel(target_of(server)) as channel:
        stub: Any = SizingServiceStub(channel)
        batch = stub.BatchRecommend.future(long_batch(), timeout=60)

        assert stub.Recommend(example("llama3-8b-sft"), timeout=30).recommendations
        assert not batch.done()
        assert len(batch.result().results) == 128


def test_a_question_that_is_cancelled_while_it_waits_is_never_worked_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[RecommendQuestion] = []
    contexts: list[grpc.ServicerContext] = []
    answer, time_left = Sizing.recommend, Calls._seconds

    def recommend_and_tell(app: Sizing, question: RecommendQuestion) -> Recommended:
        asked.append(question)
        return answer(app, question)

    def seconds_of(calls: Calls, context: grpc.ServicerContext) -> float:
        contexts.append(context)
        return time_left(calls, context)

    monkeypatch.setattr(Sizing, "recommend", recommend_and_tell)
    monkeypatch.setattr(Calls, "_seconds", seconds_of)
    with running(max_concurrency=1) as server, open_channel(target_of(server)) as channel:
        recommend: Any = SizingServiceStub(channel).Recommend
        with server.calls._turns.taken(long=False, seconds=1):
            waiting = recommend.future(example("llama3-8b-sft"))
            # Of one place it has the only one.
            wait_until(lambda: server.calls._places._value == 0)
            waiting.cancel()
            wait_until(lambda: not contexts[0].is_active())
        wait_until(lambda: server.calls._places._value == 1)

        assert not asked
        assert recommend(example("llama3-8b-sft"), timeout=30).recommendations
        assert len(asked) == 1


def test_a_question_is_answered_while_a_machine_waits_to_be_registered(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    machine = catalog_pb2.Machine(name="machines/lab", model="dgx-h100")
    request = catalog_service_pb2.RegisterMachineRequest(machine=machine)
    with running(home=home.root) as server, open_channel(target_of(server)) as channel:
        with commit_lock(home):
            registering: Any = CatalogServiceStub(channel).RegisterMachine.future(request)
            recommend: Any = SizingServiceStub(channel).Recommend

            assert recommend(example("llama3-8b-sft"), timeout=5).recommendations
            assert not registering.done()
        assert registering.result(PATIENCE_SECONDS).machine.name == "machines/lab"
