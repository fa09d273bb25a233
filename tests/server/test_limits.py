"""Deadlines and limits: a call that may not run is refused at once, and costs no other."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from running_server import (
    PATIENCE_SECONDS,
    details_of,
    example,
    long_batch,
    open_channel,
    running,
    target_of,
)
from sizewright.v1.sizing_service_pb2_grpc import SizingServiceStub
from sizewright_client import SizingClient
from sizewright_client.errors import DeadlineError


def test_a_callers_deadline_ends_the_work_as_well(client: SizingClient) -> None:
    started = time.monotonic()

    with pytest.raises(DeadlineError):
        client.batch_recommend(long_batch(), timeout_seconds=0.1)

    assert time.monotonic() - started < 5
    assert client.recommend(example("llama3-8b-sft")).recommendations


@pytest.mark.parametrize(
    ("settings", "timeout"),
    [
        ({"default_deadline_seconds": 0.05}, None),
        ({"max_deadline_seconds": 0.05}, PATIENCE_SECONDS),
    ],
    ids=["a caller without a deadline gets the default", "no deadline is beyond the maximum"],
)
def test_the_server_sets_a_deadline_of_its_own(
    settings: dict[str, float], timeout: float | None
) -> None:
    with (
        running(**settings) as server,
        open_channel(target_of(server)) as channel,
        pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED") as caught,
    ):
        SizingServiceStub(channel).BatchRecommend(long_batch(), timeout=timeout)

    assert details_of(caught.value)["ErrorInfo"].reason == "DEADLINE"


def test_a_deadline_that_has_passed_is_told_by_the_embedded_engine_too() -> None:
    with SizingClient.embedded() as client, pytest.raises(DeadlineError):
        client.batch_recommend(long_batch(), timeout_seconds=0.05)


def test_calls_beyond_the_limit_are_refused_at_once_and_health_still_answers() -> None:
    with running(max_concurrency=2) as server, open_channel(target_of(server)) as channel:
        stub: Any = SizingServiceStub(channel)
        calls = [stub.BatchRecommend.future(long_batch(), timeout=60) for _ in range(3)]
        refused = _first_done(calls)
        others = [call for call in calls if call is not refused]
        healthy: Any = health_pb2_grpc.HealthStub(channel)

        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not any(call.done() for call in others)
        assert refused.details() == "the server runs 2 calls, as many as it takes; try again"
        details = details_of(refused)
        assert details["ErrorInfo"].reason == "OVERLOADED"
        assert details["RetryInfo"].retry_delay.nanos > 0
        state = healthy.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
        assert state.status == health_pb2.HealthCheckResponse.SERVING
        assert all(len(call.result().results) == 128 for call in others)
        assert stub.Recommend(example("llama3-8b-sft")).recommendations


def _first_done(calls: list[Any]) -> Any:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        for call in calls:
            if call.done():
                return call
        time.sleep(0.001)
    raise AssertionError("no call was answered or refused")


def test_the_limit_of_a_message_is_a_setting() -> None:
    request = example("llama3-8b-sft")
    request.workload.name = "x" * 8192
    with (
        running(max_message_bytes=4096) as server,
        open_channel(target_of(server)) as channel,
    ):
        stub = SizingServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
            stub.Recommend(request)
        request.workload.name = "short"
        assert stub.Recommend(request).recommendations


def test_metadata_without_end_is_refused_and_the_server_lives_on() -> None:
    with running() as server, open_channel(target_of(server)) as channel:
        stub = SizingServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.Recommend(example("llama3-8b-sft"), metadata=(("x-pad", "x" * 200_000),))
        assert stub.Recommend(example("llama3-8b-sft")).recommendations
