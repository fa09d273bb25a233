"""Real servers on loopback for tests: in this process, or in one of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sizewright.v1 import sizing_service_pb2
from sizewright_client import load_request
from sizewright_server.serve import Running
from sizewright_server.settings import ServerSettings

EXAMPLES = Path(__file__).parents[2] / "examples"
#: How long anything may take that takes milliseconds, before a test gives up.
PATIENCE_SECONDS = 30.0


def example(name: str) -> sizing_service_pb2.RecommendRequest:
    """The request of a file under examples/."""
    return load_request(str(EXAMPLES / f"{name}.yaml"))


def long_batch(count: int = 128) -> sizing_service_pb2.BatchRecommendRequest:
    """Hundreds of different workloads: more than a second of work, in one call."""
    batch = sizing_service_pb2.BatchRecommendRequest()
    for i in range(count):
        one = batch.requests.add()
        one.CopyFrom(example("llama3-8b-sft"))
        one.workload.training.seq_len = 2048 + 64 * i
        one.max_results = 1
    return batch


@contextmanager
def running(**given: Any) -> Iterator[Running]:
    """A server in this process on a port of its own, drained when the context closes."""
    usual: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "drain_delay_seconds": 0,
        "grace_seconds": 5,
    }
    server = Running(ServerSettings(**(usual | given)))
    try:
        yield server
    finally:
        server.drain()


def open_channel(target: str) -> grpc.Channel:
    """A bare channel that takes answers of any size; gRPC's own limit is 4 MiB."""
    return grpc.insecure_channel(target, [("grpc.max_receive_message_length", -1)])


def wait_until(holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Waits until something holds. Raises AssertionError when it does not in time."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come to hold in time"
        time.sleep(0.05)


def target_of(server: Running) -> str:
    """What a client connects to."""
    return f"127.0.0.1:{server.port}"


class ServerProcess:
    """`python -m sizewright_server` with its settings in the environment and its log in a file."""

    def __init__(self, **given: object) -> None:
        usual = {"listen": "127.0.0.1:0", "drain_delay_seconds": 0}
        settings = {f"SIZEWRIGHT_{k.upper()}": str(v) for k, v in (usual | given).items()}
        plain = {k: v for k, v in os.environ.items() if not k.startswith("SIZEWRIGHT_")}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sizewright_server"], stderr=self._log, env=plain | settings
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def said(self) -> str:
        """All of its standard error so far."""
        # The offset is the child's too, so the file is read without moving it.
        return os.pread(self._log.fileno(), 2**24, 0).decode()

    def entries(self, message: str) -> list[dict[str, Any]]:
        """Its log entries with a message."""
        lines = [line for line in self.said().splitlines() if line.startswith("{")]
        return [entry for line in lines if (entry := json.loads(line))["message"] == message]

    def wait_for(self, message: str, count: int = 1) -> list[dict[str, Any]]:
        """The entries with a message, once there are `count` of them."""
        until = time.monotonic() + PATIENCE_SECONDS
        while len(found := self.entries(message)) < count:
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"no {message!r} in the log:\n{self.said()}")
            time.sleep(0.02)
        return found

    def target(self, workers: int = 1) -> str:
        """What a client connects to, once every worker serves."""
        return f"127.0.0.1:{self.wait_for('serving', workers)[0]['port']}"

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def exit_code(self) -> int:
        """Its exit status, once it has ended."""
        return self._process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        """Makes sure that it is gone."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE_SECONDS)
        self._log.close()


@contextmanager
def server_process(**given: object) -> Iterator[ServerProcess]:
    """A server in a process of its own, gone when the context closes."""
    process = ServerProcess(**given)
    try:
        yield process
    finally:
        process.end()


def details_of(error: Any) -> dict[str, Any]:
    """The google.rpc details of a failed call by the name of their type."""
    status = rpc_status.from_call(error)  # a failed call is both the error and the call
    assert status is not None, error
    found: dict[str, Any] = {}
    for packed in status.details:
        kind = packed.TypeName().rsplit(".", 1)[1]
        detail = getattr(error_details_pb2, kind)()
        assert packed.Unpack(detail)
        found[kind] = detail
    return found
