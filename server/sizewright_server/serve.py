"""Runs the server: listen, serve, drain on a signal, and leave no call unanswered."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.overrides import OverridesError
from sizewright_catalog.snapshot import SnapshotError
from sizewright_server.calls import Calls
from sizewright_server.engines import overrides_of
from sizewright_server.event_loop import on_loop
from sizewright_server.logs import log_to_stderr
from sizewright_server.refreshing.live import LiveCatalog
from sizewright_server.refreshing.upkeep import home_of, kept_fresh
from sizewright_server.servicer import CATALOG, MAX_ANSWER_BYTES, SIZING
from sizewright_server.settings import ServerSettings
from sizewright_server.tokens import TokenFileError, Tokens, read_tokens

log = logging.getLogger("sizewright.server")

SERVICES = (SIZING, CATALOG)
#: When the collector looks: seldom. What a call makes goes with its last reference, and of what is
#: remembered of workloads there is much to walk.
COLLECT_AFTER = (20_000, 20, 20)
#: How soon a worker that ended, or a parent that did, is seen.
WATCH_SECONDS = 0.2


class Running:
    """A started server and its health. With `shared_port` others may listen on the port too.

    Raises what `serve` raises.
    """

    def __init__(self, settings: ServerSettings, *, shared_port: bool = False) -> None:
        self.settings = settings
        tokens = Tokens(read_tokens(settings.token_file), read_tokens(settings.admin_token_file))
        self.live = _live_catalog(settings)
        self.calls = Calls(self.live, settings, tokens)
        self.health = health.aio.HealthServicer()
        on_loop(self._make(shared_port))
        self.port = self._listen(shared_port)
        # What was built for the catalog stays: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        on_loop(self._start())

    def drain(self) -> None:
        """Says NOT_SERVING, waits for balancers to see it, then finishes the calls that run."""
        on_loop(self.health.enter_graceful_shutdown())
        time.sleep(self.settings.drain_delay_seconds)
        on_loop(self.calls.close(self.settings.grace_seconds))
        on_loop(self._stop())

    async def _stop(self) -> None:
        """Finishes the calls that run, and says what the log has yet to say."""
        await self.server.stop(self.settings.grace_seconds)
        self.calls.turns.close()
        self.calls.log.tell()

    async def _make(self, shared_port: bool) -> None:
        """The gRPC server with everything it answers, not started yet."""
        self.server = grpc.aio.server(options=_options(self.settings, shared_port))
        self.server.add_generic_rpc_handlers(tuple(self.calls.handlers()))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        await self._set_serving(False)
        if self.settings.reflection:
            names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self.server)

    async def _start(self) -> None:
        await self.server.start()
        await self._set_serving(True)

    async def _set_serving(self, serving: bool) -> None:
        """Says it to health checks, per service and for the process."""
        states = health_pb2.HealthCheckResponse
        status = states.SERVING if serving else states.NOT_SERVING
        for name in ("", *SERVICES):
            await self.health.set(name, status)

    def _listen(self, shared_port: bool) -> int:
        address, settings = self.settings.listen, self.settings
        if settings.unix_path is not None:
            _refuse_a_socket_in_use(settings.unix_path)
        elif not shared_port:
            _free_address(settings)
        if settings.tls_cert is None or settings.tls_key is None:
            return self.server.add_insecure_port(address)
        client_ca = settings.tls_client_ca.read_bytes() if settings.tls_client_ca else None
        credentials = grpc.ssl_server_credentials(
            [(settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())],
            root_certificates=client_ca,
            require_client_auth=client_ca is not None,
        )
        return self.server.add_secure_port(address, credentials)


def serve(settings: ServerSettings) -> int:
    """Serves until SIGTERM or SIGINT; a second signal ends at once. Returns the exit status.

    Raises SnapshotError, TokenFileError, OSError or RuntimeError (the address cannot be had) when
    the server cannot start.
    """
    log_to_stderr()
    if settings.workers > 1:
        return _serve_many(settings)
    return _serve_one(settings)


def _serve_one(settings: ServerSettings) -> int:
    stop = threading.Event()
    _on_signals(stop, lambda number: os._exit(128 + number))
    running = Running(settings)
    log.info("serving", extra={"listen": settings.listen, "port": running.port})
    with kept_fresh(settings):
        stop.wait()
        _drain(running)
    return 0


def _drain(running: Running) -> None:
    log.info("draining")
    running.drain()
    log.info("stopped")


def _serve_many(settings: ServerSettings) -> int:
    """Spawned processes share the port; forking after gRPC has started threads is not safe."""
    reserved, shared = _reserve(settings)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(shared,)) for _ in range(settings.workers)]

    def end_at_once(number: int) -> None:
        for worker in workers:
            worker.kill()
        os._exit(128 + number)

    stop = threading.Event()
    _on_signals(stop, end_at_once)
    with reserved, kept_fresh(settings):
        for worker in workers:
            worker.start()
        while all(worker.is_alive() for worker in workers) and not stop.wait(WATCH_SECONDS):
            pass
        if not stop.is_set():
            log.error("a worker ended by itself; stopping the others")
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
    # A worker that had not come to serve yet ends by the signal itself.
    ended = {worker.exitcode for worker in workers}
    return 0 if stop.is_set() and ended <= {0, -signal.SIGTERM} else 1


def _work(settings: ServerSettings) -> None:
    """One of several workers: serves until it is told to stop, or whoever started it is gone.

    It ends at once only when the parent kills it: a signal to the whole process group arrives
    twice, and the second must not cut off the calls that run.
    """
    log_to_stderr()
    stop = threading.Event()
    _on_signals(stop, lambda number: None)
    try:
        running = Running(settings, shared_port=True)
    except (SnapshotError, OverridesError, TokenFileError, OSError, RuntimeError) as error:
        log.error("cannot start", extra={"reason": str(error)})
        raise SystemExit(1) from None
    log.info("serving", extra={"listen": settings.listen, "port": running.port})
    parent = multiprocessing.parent_process()
    while not stop.wait(WATCH_SECONDS) and (parent is None or parent.is_alive()):
        pass
    _drain(running)


def _live_catalog(settings: ServerSettings) -> LiveCatalog:
    """What is served: one file for ever, or what a home publishes; at private prices, if any."""
    overrides = overrides_of(settings.price_overrides)
    if settings.catalog is not None:
        return LiveCatalog.of_file(Catalog.load(settings.catalog), overrides)
    return LiveCatalog.of_home(home_of(settings), settings.store_url, overrides)


def _reserve(settings: ServerSettings) -> tuple[socket.socket, ServerSettings]:
    """A socket that holds the port for the workers, and their settings with its number.

    It never listens, so it gets no calls. Raises OSError when someone else has the port.
    """
    family, address = _free_address(settings)
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(address)
    host = settings.tcp[0]
    name = f"[{host}]" if ":" in host else host
    return held, settings.model_copy(update={"workers": 1, "listen": f"{name}:{address[1]}"})


def _free_address(settings: ServerSettings) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """The address to bind, its port chosen where it was 0.

    Raises OSError saying why it cannot be had. Sharing is not asked for, so a port that another
    server's workers share is taken all the same.
    """
    host, port = settings.tcp
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return family, probe.getsockname()
    except OSError as error:
        raise OSError(f"cannot listen on {settings.listen}: {error.strerror}") from error


def _refuse_a_socket_in_use(path: str) -> None:
    """Raises OSError when the path is another server's, which gRPC would quietly take over."""
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return
    if not is_socket:
        raise OSError(f"cannot listen on unix:{path}: it is a file, not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(path) == 0:
            raise OSError(f"cannot listen on unix:{path}: another server listens there")


def _on_signals(stop: threading.Event, again: Callable[[int], None]) -> None:
    """Sets `stop` at the first SIGTERM or SIGINT, and calls `again` at each one after it."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            again(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _options(settings: ServerSettings, shared_port: bool) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.so_reuseport", int(shared_port)),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
    )
