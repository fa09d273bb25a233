"""A server under faults: bytes that are no requests, callers that vanish, files that are torn."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from importlib import resources
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
    server_process,
    target_of,
)
from sizewright.v1.sizing_service_pb2_grpc import SizingServiceStub

METHODS = (
    "/sizewright.v1.SizingService/Estimate",
    "/sizewright.v1.SizingService/Recommend",
    "/sizewright.v1.SizingService/BatchRecommend",
    "/sizewright.v1.SizingService/CheckFit",
    "/sizewright.v1.CatalogService/ListOffers",
    "/sizewright.v1.CatalogService/GetInstanceType",
)
#: What a caller may be told of a request that is broken in any way.
EXPECTED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
SNAPSHOT = Path(str(resources.files("sizewright_catalog").joinpath("data/snapshot.npz")))


def lives(channel: grpc.Channel) -> bool:
    """Whether a good question is still answered."""
    answer = SizingServiceStub(channel).Recommend(
        example("llama3-8b-sft"), timeout=PATIENCE_SECONDS, wait_for_ready=True
    )
    return bool(answer.recommendations)


def broken(good: bytes, chance: random.Random) -> bytes:
    """A message with a few bytes changed, cut out, doubled, or nothing but noise."""
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(0, 300))
    made = bytearray(good)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(made) + 1)
        kind = chance.randrange(4)
        if kind == 0 and made:
            made[at % len(made)] = chance.randrange(256)
        elif kind == 1:
            del made[at : at + chance.randrange(1, 8)]
        elif kind == 2:
            made[at:at] = made[at : at + chance.randrange(1, 20)]
        else:
            made[at:at] = chance.randbytes(chance.randrange(1, 6))
    return bytes(made)


def send_broken(channel: grpc.Channel, count: int, seed: int) -> set[str]:
    """The codes of that many broken requests."""
    chance, codes = random.Random(seed), set()
    goods = [example(name) for name in ("llama3-8b-sft", "llama3-8b-chat", "xgboost-tabular")]
    for _ in range(count):
        call: Any = channel.unary_unary(chance.choice(METHODS))
        try:
            call(broken(chance.choice(goods).SerializeToString(), chance), timeout=5)
            codes.add("OK")
        except grpc.RpcError as error:
            failed: Any = error
            codes.add(failed.code().name)
    return codes


def test_broken_messages_are_wrong_requests_and_never_a_fault(target: str) -> None:
    with open_channel(target) as channel:
        assert send_broken(channel, 300, seed=1) <= EXPECTED
        assert lives(channel)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 8))
def test_many_broken_messages_are_wrong_requests_and_never_a_fault(seed: int, target: str) -> None:
    with open_channel(target) as channel:
        assert send_broken(channel, 4000, seed=seed) <= EXPECTED
        assert lives(channel)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 4096,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff",
    ],
    ids=["http 1", "zeros", "a preface and nonsense"],
)
def test_connections_that_do_not_speak_grpc_cost_no_other(said: bytes, target: str) -> None:
    host, port = target.split(":")
    held = []
    for _ in range(50):
        held.append(socket.create_connection((host, int(port)), timeout=5))
        held[-1].sendall(said)
    with open_channel(target) as channel:
        assert lives(channel)
    for connection in held:
        connection.close()


def test_callers_that_go_away_leave_their_places_to_others() -> None:
    with running(max_concurrency=2) as server, open_channel(target_of(server)) as channel:
        stub: Any = SizingServiceStub(channel)
        for _ in range(30):
            stub.BatchRecommend.future(long_batch(8), timeout=PATIENCE_SECONDS).cancel()
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            try:
                assert lives(channel)
                return
            except grpc.RpcError as error:
                failed: Any = error
                assert failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                time.sleep(0.05)
        raise AssertionError("places were never given back")


def test_a_server_that_is_killed_can_be_started_on_its_address_at_once(tmp_path: Path) -> None:
    for listen in ("127.0.0.1:0", f"unix:{tmp_path / 'sizing.sock'}"):
        with server_process(listen=listen) as first:
            port = first.wait_for("serving")[0]["port"]
            address = listen if listen.startswith("unix:") else f"127.0.0.1:{port}"
            with open_channel(address) as channel:
                stub: Any = SizingServiceStub(channel)
                call = stub.BatchRecommend.future(long_batch(), timeout=PATIENCE_SECONDS)
                assert lives(channel)
                first.signal(signal.SIGKILL)
                assert call.exception().code() is grpc.StatusCode.UNAVAILABLE
            assert first.exit_code() == -signal.SIGKILL
        with server_process(listen=address) as second, open_channel(address) as channel:
            second.wait_for("serving")
            assert lives(channel)


def test_a_server_that_hangs_costs_a_caller_no_more_than_its_deadline() -> None:
    with server_process() as server, open_channel(server.target()) as channel:
        assert lives(channel)
        server.signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            SizingServiceStub(channel).Recommend(example("llama3-8b-sft"), timeout=0.5)
        assert time.monotonic() - started < 5
        server.signal(signal.SIGCONT)
        assert lives(channel)


def test_a_log_that_nobody_reads_any_more_stops_no_call() -> None:
    environment = os.environ | {"SIZEWRIGHT_LISTEN": "127.0.0.1:0"}
    with subprocess.Popen(
        [sys.executable, "-m", "sizewright_server"], stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if b'"serving"' in line)
            port = int(line.split(b'"port": ')[1].split(b"}")[0].split(b",")[0])
            process.stderr.close()
            with open_channel(f"127.0.0.1:{port}") as channel:
                assert all(lives(channel) for _ in range(5))
            process.terminate()
            assert process.wait(PATIENCE_SECONDS) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "text"])
def test_a_server_with_a_damaged_catalog_does_not_start_and_says_so(
    damage: str, tmp_path: Path
) -> None:
    content = bytearray(SNAPSHOT.read_bytes())
    if damage == "flipped":
        content[len(content) // 3] ^= 0xFF
    made = {
        "cut": bytes(content[: len(content) // 2]),
        "empty": b"",
        "flipped": bytes(content),
        "text": b"instance_type,price\n",
    }[damage]
    path = tmp_path / "catalog.npz"
    path.write_bytes(made)

    with server_process(catalog=path) as server:
        assert server.exit_code() == 2
        assert "catalog.npz" in server.said()
        assert "Traceback" not in server.said()


@pytest.mark.long
def test_no_flipped_bit_of_the_catalog_is_served(tmp_path: Path) -> None:
    from sizewright_catalog.catalog import Catalog
    from sizewright_catalog.snapshot import SnapshotError

    chance, good = random.Random(7), SNAPSHOT.read_bytes()
    whole = Catalog.load(SNAPSHOT).version
    path = tmp_path / "catalog.npz"
    for _ in range(400):
        content = bytearray(good)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        try:
            # What is no content (time stamps, padding of the archive) may change unseen.
            assert Catalog.load(path).version == whole
        except SnapshotError:
            continue
