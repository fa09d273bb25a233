"""Served throughput beside an empty echo with the same message sizes, in turns in the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psutil
from tests.bench import echo_server, load
from tests.bench.figures import Figure
from tests.bench.in_process import RECOMMEND
from tests.bench.questions import Request, new_workloads, seen_before

from sizewright_server.service import Sizing
from sizewright_server.servicer import dispatch
from sizewright_server.settings import ServerSettings

GENERATORS = 2
IN_FLIGHT = 8
MIB = 2**20


@dataclass
class Server:
    """A server process, its address, and what it has used."""

    process: subprocess.Popen[str]
    port: int

    @property
    def processes(self) -> list[psutil.Process]:
        """The process that was started, and those it has started."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    @property
    def resident_mib(self) -> float:
        """Resident memory of its largest process."""
        return float(max(one.memory_info().rss for one in self.processes) / MIB)

    @property
    def cpu_seconds(self) -> float:
        """Processor time it has used so far."""
        times = [one.cpu_times() for one in self.processes]
        return float(sum(each.user + each.system for each in times))


@contextmanager
def service(workers: int) -> Iterator[Server]:
    """`sizewright serve` on a free port, its log of every call in a file.

    A process that reads the log through a pipe would take its own share of the processors.
    """
    command = [sys.executable, "-m", "sizewright_client", "serve", "--listen", "127.0.0.1:0"]
    command += ["--workers", str(workers)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stderr=log, text=True) as process,
    ):
        try:
            yield Server(process, _port(process, log.fileno(), workers))
            process.terminate()
            process.wait(60)
        finally:
            process.kill()


def _port(process: subprocess.Popen[str], log: int, workers: int) -> int:
    """The port, once every worker serves. Raises RuntimeError when the server ends instead."""
    while process.poll() is None:
        # The offset is the server's too, so the file is read without moving it.
        lines = os.pread(log, 2**20, 0).decode().splitlines()
        serving = [line for line in lines if '"serving"' in line]
        if len(serving) == workers:
            return int(json.loads(serving[-1])["port"])
        time.sleep(0.05)
    raise RuntimeError(f"the server ended: {os.pread(log, 2**16, 0).decode()}")


@contextmanager
def echo(workers: int) -> Iterator[Server]:
    """The echo server, with as many processes as the service has, and threads in each."""
    threads = ServerSettings().max_concurrency + 8
    command = [sys.executable, "-m", "tests.bench.echo_server", str(threads), str(workers)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield Server(process, int(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(60)


@dataclass(frozen=True)
class Rate:
    """Calls a second, and the server's processor milliseconds for each."""

    per_second: float
    cpu_ms: float


def drive(server: Server, method: str, files: Sequence[Path], seconds: float) -> Rate:
    """Runs a generator per file against a server. Raises RuntimeError when a call fails."""
    cpu = server.cpu_seconds
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.bench.load", f"127.0.0.1:{server.port}", method),
                *(str(file), str(seconds), str(IN_FLIGHT)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for file in files
    ]
    results = [json.loads(process.communicate()[0]) for process in running]
    failed = [result for result in results if result["failed"]]
    if failed:
        raise RuntimeError(f"calls failed under load: {failed[0]}")
    calls = sum(result["answered"] for result in results)
    return Rate(
        per_second=sum(result["answered"] / result["seconds"] for result in results),
        cpu_ms=1e3 * (server.cpu_seconds - cpu) / max(calls, 1),
    )


def served_figures(app: Sizing, folder: Path, seconds: float) -> list[Figure]:
    """Throughput of both kinds of question with a worker per processor, and with one.

    One worker has a processor to itself while the generators share the others, so that the echo is
    theirs more than its own; with a worker on each, every call is paid for by all. And the server's
    memory, before and after.
    """
    sets = {
        # More than a run can use up, so that no workload comes twice.
        "seen workload": _write(app, list(islice(seen_before(), 400)), folder, "seen"),
        "new workloads": _write(
            app, list(islice(new_workloads(explicit=True), int(1500 * seconds))), folder, "new"
        ),
    }
    made = []
    for workers in sorted({os.cpu_count() or 1, 1}, reverse=True):
        judged = workers == (os.cpu_count() or 1)
        with service(workers) as ours, echo(workers) as floor:
            before = ours.resident_mib
            for kind, budget in (("seen workload", 0.60), ("new workloads", 0.35)):
                name = f"served: {kind}, share of an empty echo"
                if not judged:
                    name += ", one worker"
                rate = _compared(name, budget if judged else None, ours, floor, sets[kind], seconds)
                made.append(rate)
            if judged:
                made.append(_memory(ours, floor, before))
    return made


def _memory(ours: Server, floor: Server, before: float) -> Figure:
    return Figure(
        "server resident memory, full catalog",
        ours.resident_mib,
        "MiB",
        250,
        beside={"before_load_mib": before, "echo_mib": floor.resident_mib},
        basis="RSS of the largest serving process after the load of this run",
    )


def _write(
    app: Sizing, requests: Sequence[Request], folder: Path, name: str
) -> tuple[list[Path], list[Path]]:
    """Files of requests for each generator, and of echoes of the same sizes."""
    sizes = [_answer_size(app, request) for request in requests[:: max(1, len(requests) // 40)]]
    typical = sorted(sizes)[len(sizes) // 2].to_bytes(echo_server.LENGTH_BYTES, "big")
    real, echoed = [], []
    for number in range(GENERATORS):
        sent = [request.SerializeToString() for request in requests[number::GENERATORS]]
        real.append(folder / f"{name}-requests-{number}")
        echoed.append(folder / f"{name}-echoes-{number}")
        load.write_messages(real[-1], sent)
        pad = echo_server.LENGTH_BYTES
        load.write_messages(echoed[-1], [typical + message[pad:] for message in sent])
    return real, echoed


def _answer_size(app: Sizing, request: Request) -> int:
    return len(dispatch(app, RECOMMEND, request))


def _compared(
    name: str,
    budget: float | None,
    ours: Server,
    floor: Server,
    sets: tuple[list[Path], list[Path]],
    seconds: float,
) -> Figure:
    """Both servers in turns, twice, so that a busy moment of the machine falls on both."""
    real, echoed = sets
    drive(floor, echo_server.METHOD, echoed, 0.5)
    floors, mine = [], []
    for _ in range(2):
        floors.append(drive(floor, echo_server.METHOD, echoed, seconds / 2))
        mine.append(drive(ours, RECOMMEND, real, seconds / 2))
    served = sum(rate.per_second for rate in mine) / 2
    empty = sum(rate.per_second for rate in floors) / 2
    return Figure(
        name,
        served / empty,
        "x",
        budget,
        "at-least",
        beside={
            "served_per_second": served,
            "echo_per_second": empty,
            "served_cpu_ms": sum(rate.cpu_ms for rate in mine) / 2,
            "echo_cpu_ms": sum(rate.cpu_ms for rate in floors) / 2,
        },
        basis=f"{GENERATORS} generators with {IN_FLIGHT} calls in flight each, the same for both",
    )
