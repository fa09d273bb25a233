"""One question computes at a time, and no short one waits for a long one."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

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
from sizewright.v1 import catalog_pb2, catalog_service_pb2, sizing_service_pb2
from sizewright.v1.catalog_service_pb2_grpc import CatalogServiceStub
from sizewright.v1.sizing_service_pb2_grpc import SizingServiceStub
from sizewright_catalog.home import Home
from sizewright_catalog.locks import commit_lock
from sizewright_server.long_calls import MANY_NODES
from sizewright_server.service import Sizing
from sizewright_server.servicer import dispatch
from sizewright_server.turns import SLICE_SECONDS, Turns, Work


def test_short_questions_compute_one_at_a_time_and_the_loop_looks_around_between_them() -> None:
    seen: list[str] = []

    async def ask() -> None:
        turns = Turns(1, 1)
        asked = [turns.short(partial(_say, seen, name)) for name in ("one", "two", "three")]
        asyncio.get_running_loop().call_soon(_look_around, seen, 4)
        assert await asyncio.gather(*asked) == [b"one", b"two", b"three"]

    asyncio.run(ask())
    questions = [at for at, what in enumerate(seen) if what != "others"]
    assert [seen[at] for at in questions] == ["one", "two", "three"]
    assert all("others" in seen[a:b] for a, b in pairwise(questions))


def _say(seen: list[str], name: str) -> bytes:
    """A question that takes longer than several may one after the other."""
    seen.append(name)
    time.sleep(2 * SLICE_SECONDS)
    return name.encode()


def _look_around(seen: list[str], left: int) -> None:
    """Something else that the loop has to see to, again and again."""
    seen.append("others")
    if left:
        asyncio.get_running_loop().call_soon(_look_around, seen, left - 1)


def test_questions_that_take_next_to_nothing_follow_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However busy the machine is, three of them take less.
    monkeypatch.setattr("sizewright_server.turns.SLICE_SECONDS", PATIENCE_SECONDS)
    seen: list[str] = []

    async def ask() -> None:
        turns = Turns(1, 1)
        asked = [turns.short(partial(_note, seen, name)) for name in ("one", "two", "three")]
        asyncio.get_running_loop().call_soon(_look_around, seen, 4)
        await asyncio.gather(*asked)

    asyncio.run(ask())
    assert [what for what in seen if what != "others"] == ["one", "two", "three"]
    assert seen.index("one") + 2 == seen.index("three")


def test_questions_that_have_waited_follow_each_other_too(monkeypatch: pytest.MonkeyPatch) -> None:
    length = "sizewright_server.turns.SLICE_SECONDS"
    monkeypatch.setattr(length, 0.0)
    seen: list[str] = []

    def first() -> bytes:
        monkeypatch.setattr(length, PATIENCE_SECONDS)
        return _note(seen, "one")

    async def ask() -> None:
        turns = Turns(1, 1)
        asked = [turns.short(first), *(turns.short(partial(_note, seen, n)) for n in ("two", "3"))]
        asyncio.get_running_loop().call_soon(_look_around, seen, 4)
        await asyncio.gather(*asked)

    asyncio.run(ask())
    assert "others" in seen[seen.index("one") : seen.index("two")]
    assert seen.index("two") + 1 == seen.index("3")


def _note(seen: list[str], name: str) -> bytes:
    seen.append(name)
    return name.encode()


def test_a_question_that_fails_fails_alone() -> None:
    def fail() -> bytes:
        raise KeyError("this one")

    async def ask() -> list[bytes | BaseException]:
        turns = Turns(1, 1)
        works: list[Work] = [fail, lambda: b"a", fail, lambda: b"b"]
        asked = [turns.short(work) for work in works]
        return await asyncio.gather(*asked, turns.long(fail, 5), return_exceptions=True)

    first, a, third, b, long = asyncio.run(ask())
    assert (a, b) == (b"a", b"b")
    assert all(isinstance(failed, KeyError) for failed in (first, third, long))


def test_a_question_that_is_cancelled_while_it_waits_is_never_worked_on() -> None:
    seen: list[str] = []

    async def ask() -> None:
        turns = Turns(1, 1)
        names = ("works", "waits", "waits too")
        asked = [asyncio.ensure_future(turns.short(partial(_say, seen, name))) for name in names]
        await asyncio.sleep(0)
        asked[1].cancel()
        assert await asked[2] == b"waits too"

    asyncio.run(ask())
    assert seen == ["works", "waits too"]


@pytest.mark.parametrize("kind", ["long", "in_store"])
def test_work_in_a_thread_that_is_not_done_in_time_is_an_error(kind: str) -> None:
    may_end = threading.Event()

    async def ask() -> None:
        turns = Turns(1, 1)
        slow: Work = lambda: bytes(may_end.wait(PATIENCE_SECONDS))  # noqa: E731
        with pytest.raises(TimeoutError):
            await getattr(turns, kind)(slow, 0.05)
        # What waits behind it is dropped when its own time has passed.
        with pytest.raises(TimeoutError):
            await getattr(turns, kind)(lambda: b"never", 0.05)
        may_end.set()
        assert await getattr(turns, kind)(lambda: b"next", PATIENCE_SECONDS) == b"next"

    asyncio.run(ask())


def test_a_short_question_is_answered_while_a_long_one_is_worked_on() -> None:
    with running() as server, open_channel(target_of(server)) as channel:
        stub: Any = SizingServiceStub(channel)
        batch = stub.BatchRecommend.future(long_batch(), timeout=60)

        assert stub.Recommend(example("llama3-8b-sft"), timeout=30).recommendations
        assert not batch.done()
        assert len(batch.result().results) == 128


def _on_very_many_nodes(stub: Any) -> Any:
    """A search and a check on more nodes than most ask for, under way."""
    searched = example("llama3-8b-sft")
    searched.constraints.max_nodes = MANY_NODES + 1
    checked = sizing_service_pb2.CheckFitRequest(
        workload=searched.workload,
        instance_type="providers/aws/instanceTypes/p5.48xlarge",
        node_count=MANY_NODES + 1,
    )
    return stub.Recommend.future(searched, timeout=60), stub.CheckFit.future(checked, timeout=60)


def test_a_short_question_is_answered_while_very_many_nodes_are_searched_or_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_end = threading.Event()

    def wait(app: Sizing, method: str, request: Any, **more: Any) -> bytes:
        asked = request.constraints.max_nodes if "Recommend" in method else request.node_count
        if asked > MANY_NODES:
            assert may_end.wait(PATIENCE_SECONDS)
        return dispatch(app, method, request, **more)

    monkeypatch.setattr("sizewright_server.calls.dispatch", wait)
    with running() as server, open_channel(target_of(server)) as channel:
        stub: Any = SizingServiceStub(channel)
        under_way = _on_very_many_nodes(stub)
        wait_until(lambda: server.calls.running == len(under_way))

        assert stub.Recommend(example("llama3-8b-sft"), timeout=5).recommendations
        assert not any(call.done() for call in under_way)
        may_end.set()
        assert all(call.result() for call in under_way)


def test_a_question_whose_caller_goes_while_it_waits_is_never_worked_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    may_end = threading.Event()

    def tell(app: Sizing, method: str, request: Any, **more: Any) -> bytes:
        asked.append(request.requests[0].workload.name)
        assert may_end.wait(PATIENCE_SECONDS)
        return dispatch(app, method, request, **more)

    monkeypatch.setattr("sizewright_server.calls.dispatch", tell)
    with running() as server, open_channel(target_of(server)) as channel:
        stub: Any = SizingServiceStub(channel)
        works = stub.BatchRecommend.future(_named("works"), timeout=60)
        wait_until(lambda: asked == ["works"])
        goes, stays = (
            stub.BatchRecommend.future(_named(name), timeout=60) for name in ("goes", "stays")
        )
        wait_until(lambda: server.calls.running == 3)
        goes.cancel()
        wait_until(lambda: server.calls.running == 2)
        may_end.set()

        assert len(works.result().results) == len(stays.result().results) == 1
        assert asked == ["works", "stays"]


def _named(name: str) -> sizing_service_pb2.BatchRecommendRequest:
    """A question of the kind that takes long, its workload named."""
    made = long_batch(1)
    made.requests[0].workload.name = name
    return made


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
