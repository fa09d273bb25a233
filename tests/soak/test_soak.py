"""A server under load for a while: every answer right and the same, nothing that only grows."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.message import Message

from running_server import ServerProcess, example, open_channel, server_process
from sizewright.v1 import catalog_service_pb2, sizing_service_pb2
from sizewright.v1.catalog_service_pb2_grpc import CatalogServiceStub
from sizewright.v1.sizing_service_pb2_grpc import SizingServiceStub

CALLERS = 4
MIB = 2**20
#: Kept estimates and instance types fill up within the first part of a run, and then no more.
GROWTH_MIB = 24
#: Codes of the wrong requests in the mix; anything else is a fault.
EXPECTED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}


def questions(channel: grpc.Channel) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Calls without end: right and wrong, seen and new, small and large; named where repeated."""
    sizing: Any = SizingServiceStub(channel)
    catalog: Any = CatalogServiceStub(channel)
    wrong = example("llama3-8b-sft")
    wrong.workload.training.precision = "fp31"
    check = sizing_service_pb2.CheckFitRequest(
        workload=example("bert-base-finetune").workload,
        instance_type="providers/aws/instanceTypes/g5.xlarge",
    )
    missing = catalog_service_pb2.GetInstanceTypeRequest(name="providers/aws/instanceTypes/x")
    offers = catalog_service_pb2.ListOffersRequest(device="H100-SXM", page_size=500)
    repeated = [
        *((n, sizing.Recommend, example(n)) for n in ("llama3-8b-sft", "llama3-8b-chat")),
        ("forest", sizing.Recommend, example("sklearn-forest")),
        ("check", sizing.CheckFit, check),
        ("wrong", sizing.Recommend, wrong),
        ("missing", catalog.GetInstanceType, missing),
        ("offers", catalog.ListOffers, offers),
    ]
    for number, (name, call, request) in enumerate(cycle(repeated)):
        yield name, partial(_bytes_of, call, request)
        new = example("llama3-8b-sft")
        new.workload.training.seq_len = 512 + 8 * (number % 1500)
        yield "", partial(_bytes_of, sizing.Recommend, new)


def _bytes_of(call: Callable[[Message], Message], request: Message) -> bytes:
    return call(request).SerializeToString()


class Soak:
    """Callers on connections of their own, and what they saw."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.codes: Counter[str] = Counter()
        self.answers: dict[str, set[bytes]] = {}
        self.slowest_seconds = 0.0
        self._lock = threading.Lock()

    def run(self, seconds: float) -> None:
        """Calls for that long."""
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self._call, args=(until,)) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _call(self, until: float) -> None:
        with open_channel(self.target) as channel:
            for name, ask in questions(channel):
                if time.monotonic() > until:
                    return
                self._ask(name, ask)

    def _ask(self, name: str, ask: Callable[[], bytes]) -> None:
        started = time.monotonic()
        try:
            answer, code = ask(), "OK"
        except grpc.RpcError as error:
            failed: Any = error
            answer, code = str(failed.details()).encode(), failed.code().name
        took = time.monotonic() - started
        with self._lock:
            self.codes[code] += 1
            self.slowest_seconds = max(self.slowest_seconds, took)
            if name:
                self.answers.setdefault(name, set()).add(answer)


def held_by(server: ServerProcess) -> tuple[float, int, int]:
    """Resident MiB, open files and threads of a server."""
    process = psutil.Process(server.pid)
    return process.memory_info().rss / MIB, process.num_fds(), process.num_threads()


def soak(seconds: float, *, warm_up: float) -> None:
    """Loads a server, and holds its end against its state after the warm-up."""
    with server_process() as server:
        load = Soak(server.target())
        load.run(warm_up)
        memory, files, threads = held_by(server)
        load.run(seconds)
        time.sleep(0.5)
        memory_after, files_after, threads_after = held_by(server)
        print(
            f"\n{sum(load.codes.values())} calls {dict(load.codes)}, slowest "
            f"{load.slowest_seconds:.2f} s, memory {memory:.0f} to {memory_after:.0f} MiB, "
            f"files {files} to {files_after}, threads {threads} to {threads_after}"
        )
        assert set(load.codes) <= EXPECTED
        assert all(len(answers) == 1 for answers in load.answers.values())
        assert memory_after - memory <= GROWTH_MIB
        assert memory_after <= 250
        assert files_after <= files + CALLERS
        assert threads_after <= threads + 2
        server.signal()
        assert server.exit_code() == 0


def test_a_short_load_gets_the_same_answers_all_along() -> None:
    soak(4, warm_up=4)


@pytest.mark.long
def test_a_long_load_leaves_nothing_behind() -> None:
    seconds = float(os.environ.get("SOAK_SECONDS", "120"))
    soak(seconds, warm_up=seconds / 4)
