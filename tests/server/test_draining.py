"""SIGTERM: health says so first, calls that run are finished, none is lost, the exit code is 0."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from running_server import (
    PATIENCE_SECONDS,
    ServerProcess,
    example,
    long_batch,
    open_channel,
    server_process,
)
from sizewright.v1.sizing_service_pb2_grpc import SizingServiceStub
from sizewright_client import SizingClient

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_call_that_runs_is_finished_before_the_server_goes() -> None:
    with server_process() as server, open_channel(server.target()) as channel:
        stub: Any = SizingServiceStub(channel)
        stub.Recommend(example("llama3-8b-sft"))
        long_call = stub.BatchRecommend.future(long_batch(), timeout=PATIENCE_SECONDS)
        _wait_until_it_runs(stub, server)
        server.signal()

        assert len(long_call.result().results) == 128
        assert server.exit_code() == 0
        assert server.wait_for("stopped")
        codes = {entry["code"] for entry in server.entries("call")}
        assert codes == {"OK"}


def _wait_until_it_runs(stub: Any, server: ServerProcess) -> None:
    """A second call on the connection is answered: the one sent before it has arrived."""
    stub.Recommend(example("bert-base-finetune"), timeout=PATIENCE_SECONDS)
    time.sleep(0.05)
    methods = {entry["method"].rsplit("/", 1)[1] for entry in server.entries("call")}
    assert "BatchRecommend" not in methods


def test_balancers_see_it_before_calls_are_turned_away() -> None:
    with (
        server_process(drain_delay_seconds=1) as server,
        open_channel(server.target()) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watched = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == SERVING
        server.signal()
        assert next(watched).status == NOT_SERVING
        # Within the delay calls are still taken: balancers have yet to act on what they saw.
        answer = SizingServiceStub(channel).Recommend(example("llama3-8b-sft"))
        assert answer.recommendations
        watched.cancel()

        assert server.exit_code() == 0


def test_no_call_of_many_callers_is_lost_while_it_drains() -> None:
    with server_process(drain_delay_seconds=0.5) as server:
        target = server.target()
        answered, failed = _callers(target, server)

        assert server.exit_code() == 0
        # Every call the server took was answered, every other one refused as worth another try.
        codes = [entry["code"] for entry in server.entries("call")]
        assert answered == codes.count("OK") > 0
        assert set(codes) <= {"OK", "UNAVAILABLE"}
        assert failed == ["UNAVAILABLE"] * 4


def _callers(target: str, server: ServerProcess) -> tuple[int, list[str]]:
    """Four callers that call until the server is gone, which is told to go after a while."""
    answered, failed = [], []

    def call() -> None:
        with open_channel(target) as channel:
            stub = SizingServiceStub(channel)
            while True:
                try:
                    stub.Recommend(example("llama3-8b-sft"), timeout=PATIENCE_SECONDS)
                    answered.append(1)
                except grpc.RpcError as error:
                    failed.append(error.code().name)
                    return

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + PATIENCE_SECONDS
    while len(answered) < 20 and time.monotonic() < until:
        time.sleep(0.01)
    server.signal()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    return len(answered), failed


def test_a_second_signal_ends_at_once() -> None:
    with server_process(drain_delay_seconds=60) as server:
        server.target()
        server.signal(signal.SIGINT)
        server.wait_for("draining")
        server.signal(signal.SIGINT)

        assert server.exit_code() == 128 + signal.SIGINT


def test_workers_share_the_port_and_drain_together() -> None:
    with server_process(workers=2) as server:
        target = server.target(workers=2)
        with SizingClient.connect(target) as client:
            assert client.recommend(example("llama3-8b-sft")).recommendations
        server.signal()

        assert server.exit_code() == 0
        assert len(server.entries("stopped")) == 2


def test_a_worker_that_dies_takes_the_server_down_so_that_it_is_started_anew() -> None:
    with server_process(workers=2) as server:
        server.target(workers=2)
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        if not children.exists():
            pytest.skip("this kernel does not list the children of a process")
        workers = [
            int(pid)
            for pid in children.read_text().split()
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)

        assert server.exit_code() == 1
        assert server.entries("a worker ended by itself; stopping the others")
