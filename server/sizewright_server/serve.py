"""Runs the server: listen, serve, drain on a signal, and leave no call unanswered."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sizewright_catalog.catalog import Catalog
from sizewright_server.calls import Calls
from sizewright_server.logs import log_to_stderr
from sizewright_server.service import Sizing
from sizewright_server.servicer import CATALOG, SIZING
from sizewright_server.settings import ServerSettings
from sizewright_server.tokens import Tokens, read_tokens

log = logging.getLogger("sizewright.server")

SERVICES = (SIZING, CATALOG)
#: Threads beyond the calls that may run: to refuse the others at once, and to answer health.
SPARE_THREADS = 8


class Running:
    """A started server and its health."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.health = health.HealthServicer()
        tokens = Tokens(read_tokens(settings.token_file), read_tokens(settings.admin_token_file))
        threads = settings.max_concurrency + SPARE_THREADS
        self.server = grpc.server(
            ThreadPoolExecutor(max_workers=threads, thread_name_prefix="call"),
            options=_options(settings),
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.set_serving(False)
        app = Sizing(Catalog.load(settings.catalog))
        self.server.add_generic_rpc_handlers(tuple(Calls(app, settings, tokens).handlers()))
        if settings.reflection:
            names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self.server)
        self.port = self._listen()
        self.server.start()
        self.set_serving(True)

    def set_serving(self, serving: bool) -> None:
        """Says it to health checks, per service and for the process."""
        states = health_pb2.HealthCheckResponse
        status = states.SERVING if serving else states.NOT_SERVING
        for name in ("", *SERVICES):
            self.health.set(name, status)

    def drain(self) -> None:
        """Says NOT_SERVING, waits for balancers to see it, then finishes the calls that run."""
        self.health.enter_graceful_shutdown()
        time.sleep(self.settings.drain_delay_seconds)
        self.server.stop(self.settings.grace_seconds).wait()

    def _listen(self) -> int:
        address, settings = self.settings.listen, self.settings
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

    Raises SnapshotError, TokenFileError, OSError or RuntimeError (the address is taken) when the
    server cannot start.
    """
    log_to_stderr()
    if settings.workers > 1:
        return _serve_many(settings)
    return _serve_one(settings)


def _serve_one(settings: ServerSettings) -> int:
    stop = threading.Event()
    _on_signals(stop)
    running = Running(settings)
    log.info("serving", extra={"listen": settings.listen, "port": running.port})
    stop.wait()
    log.info("draining")
    running.drain()
    log.info("stopped")
    return 0


def _serve_many(settings: ServerSettings) -> int:
    """Spawned processes share the port; forking after gRPC has started threads is not safe."""
    stop = threading.Event()
    _on_signals(stop)
    context = multiprocessing.get_context("spawn")
    alone = settings.model_copy(update={"workers": 1})
    workers = [context.Process(target=serve, args=(alone,)) for _ in range(settings.workers)]
    for worker in workers:
        worker.start()
    while not stop.wait(0.2):
        if not all(worker.is_alive() for worker in workers):
            log.error("a worker ended by itself; stopping the others")
            break
    failed = any(worker.exitcode for worker in workers)
    for worker in workers:
        if worker.is_alive() and worker.pid is not None:
            os.kill(worker.pid, signal.SIGTERM)
    for worker in workers:
        worker.join()
    return 1 if failed else 0


def _on_signals(stop: threading.Event) -> None:
    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _options(settings: ServerSettings) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", 16 * 2**20),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.so_reuseport", 1 if settings.workers >= 1 else 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
    )
