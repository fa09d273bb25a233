"""A load generator: `python -m tests.bench.load TARGET METHOD FILE SECONDS IN_FLIGHT`.

Sends the messages of FILE (written by `write_messages`) one after the other, round and round, with
IN_FLIGHT calls open over several connections, which the workers of a server share between them. All
is bytes: it neither builds nor reads messages while it measures. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc

LENGTH_BYTES = 8
CONNECTIONS = 4


def write_messages(path: Path, messages: Iterable[bytes]) -> None:
    """Messages, each after its length."""
    with path.open("wb") as file:
        for message in messages:
            file.write(len(message).to_bytes(LENGTH_BYTES, "big") + message)


def read_messages(path: Path) -> list[bytes]:
    """What `write_messages` wrote."""
    content, messages, at = path.read_bytes(), [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + LENGTH_BYTES], "big")
        at += LENGTH_BYTES
        messages.append(content[at : at + length])
        at += length
    return messages


class Load:
    """Keeps a number of calls open against one server and counts what comes back."""

    def __init__(self, target: str, method: str, messages: list[bytes], in_flight: int) -> None:
        # Channels to one address share a connection unless they are told not to.
        own = (("grpc.use_local_subchannel_pool", 1),)
        self.channels = [grpc.insecure_channel(target, own) for _ in range(CONNECTIONS)]
        self.calls: list[Any] = [channel.unary_unary(method) for channel in self.channels]
        self.messages = messages
        self.places = threading.Semaphore(in_flight)
        self.in_flight = in_flight
        self.sent = 0
        self.answered = 0
        self.failed: dict[str, int] = {}
        self.first = ""

    def run(self, seconds: float) -> dict[str, object]:
        """Sends for that long, waits for what is open, and says what happened."""
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            self.places.acquire()
            message = self.messages[self.sent % len(self.messages)]
            call = self.calls[self.sent % len(self.calls)]
            self.sent += 1
            call.future(message, timeout=30).add_done_callback(self._done)
        for _ in range(self.in_flight):
            self.places.acquire()
        took = time.perf_counter() - started
        for channel in self.channels:
            channel.close()
        return {
            "answered": self.answered,
            "failed": self.failed,
            "first_failure": self.first,
            "seconds": took,
        }

    def _done(self, future: Any) -> None:
        code = future.code()
        if code == grpc.StatusCode.OK:
            self.answered += 1
        else:
            self.failed[code.name] = self.failed.get(code.name, 0) + 1
            self.first = self.first or future.details()
        self.places.release()


def main() -> None:
    """Runs a load and prints its result."""
    target, method, file, seconds, in_flight = sys.argv[1:]
    load = Load(target, method, read_messages(Path(file)), int(in_flight))
    print(json.dumps(load.run(float(seconds))))


if __name__ == "__main__":
    main()
