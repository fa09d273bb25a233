"""The log: one JSON object a line, a request id on each call, tracebacks there and nowhere else."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from running_server import details_of, example, server_process, wait_until
from sizewright.v1.sizing_service_pb2_grpc import SizingServiceStub
from sizewright_server.access_log import WAIT_SECONDS, AccessLog, Answered
from sizewright_server.logs import JsonFormatter
from sizewright_server.service import Sizing


@pytest.fixture
def entries() -> Iterator[list[dict[str, Any]]]:
    """What the package logs while the test runs, each as the object its line holds."""
    made: list[dict[str, Any]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            made.append(json.loads(JsonFormatter().format(record)))

    root, handler = logging.getLogger("sizewright"), Kept()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield made
    root.removeHandler(handler)
    root.setLevel(level)


def test_every_line_of_a_server_is_json_and_every_call_has_one() -> None:
    with server_process() as server, grpc.insecure_channel(server.target()) as channel:
        stub = SizingServiceStub(channel)
        _, call = stub.Recommend.with_call(
            example("llama3-8b-sft"), metadata=(("x-request-id", "from-the-caller"),)
        )
        bad = example("llama3-8b-sft")
        bad.workload.training.micro_batch = -1
        with pytest.raises(grpc.RpcError):
            stub.Recommend(bad)
        calls = server.wait_for("call", 2)

        assert dict(call.trailing_metadata())["x-request-id"] == "from-the-caller"
        assert [entry["code"] for entry in calls] == ["OK", "INVALID_ARGUMENT"]
        assert calls[0]["request_id"] == "from-the-caller"
        assert calls[1]["request_id"] not in ("", "from-the-caller")
        for entry in calls:
            assert entry["method"] == "/sizewright.v1.SizingService/Recommend"
            assert entry["milliseconds"] > 0
            assert entry["catalog"]
        for line in server.said().splitlines():
            assert {"time", "level", "logger", "message"} <= json.loads(line).keys()


@pytest.mark.parametrize("given", ["x" * 65, ""])
def test_a_request_id_that_would_spoil_the_log_is_replaced(
    given: str, channel: grpc.Channel, entries: list[dict[str, Any]]
) -> None:
    _ask(channel, given)
    wait_until(lambda: len(entries) > 0)

    assert entries[-1]["request_id"] != given
    assert len(entries[-1]["request_id"]) == 32


def test_lines_are_written_together_each_with_the_time_its_call_ended(
    entries: list[dict[str, Any]],
) -> None:
    async def note() -> None:
        access = AccessLog()
        for name in ("one", "two"):
            access.note(Answered("/m", "OK", 0.1, "ipv4:127.0.0.1:1", name, "catalog"))
            # The loop stands still meanwhile, so that nothing is written however long it lasts.
            time.sleep(0.005)
        assert not entries
        await asyncio.sleep(4 * WAIT_SECONDS)

    started = datetime.now(UTC)
    asyncio.run(note())

    assert [entry["request_id"] for entry in entries] == ["one", "two"]
    first, second = (datetime.fromisoformat(entry["time"]) for entry in entries)
    assert started < first < second < datetime.now(UTC) - timedelta(seconds=2 * WAIT_SECONDS)


def test_calls_that_a_server_has_yet_to_tell_of_are_in_its_log_when_it_has_gone() -> None:
    with server_process() as server, grpc.insecure_channel(server.target()) as channel:
        for _ in range(3):
            _ask(channel, "one-of-three")
        server.signal()
        assert server.exit_code() == 0

        assert [entry["request_id"] for entry in server.entries("call")] == ["one-of-three"] * 3


def _ask(channel: grpc.Channel, request_id: str) -> None:
    SizingServiceStub(channel).Recommend(
        example("llama3-8b-sft"), metadata=(("x-request-id", request_id),)
    )


def test_a_fault_of_the_program_is_internal_with_an_id_and_its_traceback_is_in_the_log_alone(
    channel: grpc.Channel, entries: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Sizing, question: object) -> None:
        raise ZeroDivisionError("a secret of the server")

    monkeypatch.setattr(Sizing, "recommend", broken)

    with pytest.raises(grpc.RpcError, match="INTERNAL") as caught:
        _ask(channel, "quote-me")

    details = str(caught.value.details())
    assert details == "internal error; quote request id quote-me"
    assert details_of(caught.value)["ErrorInfo"].metadata["request_id"] == "quote-me"
    failed = next(entry for entry in entries if entry["message"] == "call failed")
    assert failed["request_id"] == "quote-me"
    assert "ZeroDivisionError: a secret of the server" in failed["exception"]
