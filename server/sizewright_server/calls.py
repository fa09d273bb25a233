"""The gRPC side of a call: deadline, token, concurrency, request id, status, one log line."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from sizewright_server import failures
from sizewright_server.failures import CallFailed
from sizewright_server.refreshing.live import LiveCatalog
from sizewright_server.refreshing.streams import STREAMS, Call, Stream, dispatch_stream
from sizewright_server.servicer import METHODS, Method, dispatch
from sizewright_server.settings import ServerSettings
from sizewright_server.tokens import Tokens
from sizewright_server.turns import Turns

log = logging.getLogger("sizewright.access")

#: Characters a request id may have; anything else from outside is replaced by our own.
REQUEST_ID_LENGTH = 64
#: gRPC tells of a call without a deadline as of one that ends in the far future.
NO_DEADLINE_SECONDS = 10 * 365 * 86_400
#: A server that drains goes once no call has come for this long, or none of them ends in time.
QUIET_SECONDS = 0.05


class Calls:
    """Turns the method table into gRPC handlers over one engine."""

    def __init__(self, live: LiveCatalog, settings: ServerSettings, tokens: Tokens) -> None:
        self.live = live
        self.settings = settings
        self.tokens = tokens
        self._places = threading.BoundedSemaphore(settings.max_concurrency)
        self._streams = threading.BoundedSemaphore(settings.max_streams)
        self._turns = Turns()
        self._closed = threading.Event()
        self._last_arrival = time.monotonic()

    def handlers(self) -> Sequence[grpc.GenericRpcHandler]:
        """One generic handler per service."""
        services: dict[str, dict[str, Any]] = {}
        for path, method in METHODS.items():
            _, service, name = path.split("/")
            handler: Any = grpc.unary_unary_rpc_method_handler(self._handler(path, method))
            services.setdefault(service, {})[name] = handler
        for path, stream in STREAMS.items():
            _, service, name = path.split("/")
            services.setdefault(service, {})[name] = grpc.unary_stream_rpc_method_handler(
                self._stream_handler(path, stream),
                response_serializer=stream.response.SerializeToString,
            )
        return [grpc.method_handlers_generic_handler(s, table) for s, table in services.items()]

    def close(self, grace_seconds: float) -> None:
        """Refuses new calls as UNAVAILABLE and waits until none has come for a moment.

        A call that gRPC has taken and not yet handed over when its server stops is cancelled, which
        no client tries again; so every call is given time to arrive here and be refused properly.
        """
        self._closed.set()
        self.live.close()
        until = time.monotonic() + grace_seconds
        self._last_arrival = time.monotonic()
        while time.monotonic() < min(until, self._last_arrival + QUIET_SECONDS):
            time.sleep(QUIET_SECONDS / 5)

    def _handler(self, path: str, method: Method) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            started, self._last_arrival = time.perf_counter(), time.monotonic()
            metadata = context.invocation_metadata()
            identity = _request_id(metadata)
            context.set_trailing_metadata((("x-request-id", identity),))
            code = "OK"
            try:
                self.tokens.check(path, method.changes_state, metadata)
                return self._answer(path, method, request, context, identity)
            except CallFailed as failed:
                code = failed.code
                self._abort(context, failed, identity)
                raise
            finally:
                self._log(path, code, started, context, identity)

        return handle

    def _stream_handler(
        self, path: str, stream: Stream
    ) -> Callable[[bytes, grpc.ServicerContext], Iterator[Message]]:
        def handle(request: bytes, context: grpc.ServicerContext) -> Iterator[Message]:
            started = time.perf_counter()
            identity = _request_id(context.invocation_metadata())
            context.set_trailing_metadata((("x-request-id", identity),))
            code = "OK"
            try:
                yield from self._stream(path, stream, request, context, identity)
            except CallFailed as failed:
                code = failed.code
                self._abort(context, failed, identity)
            finally:
                self._log(path, code, started, context, identity)

        return handle

    def _stream(
        self,
        path: str,
        stream: Stream,
        request: bytes,
        context: grpc.ServicerContext,
        identity: str,
    ) -> Iterator[Message]:
        self.tokens.check(path, stream.changes_state, context.invocation_metadata())
        if self._closed.is_set():
            raise failures.draining()
        if not self._streams.acquire(blocking=False):
            raise failures.too_many_streams(self.settings.max_streams)
        try:
            gone = threading.Event()
            context.add_callback(gone.set)
            call = Call(self.live, self.settings.refreshed_providers, gone)
            message = _parsed(stream.request, request)
            yield from dispatch_stream(call, path, message, request_id=identity)
        finally:
            self._streams.release()

    @staticmethod
    def _abort(context: grpc.ServicerContext, failed: CallFailed, identity: str) -> None:
        """Ends a call with its status. Raises what gRPC ends a call with."""
        status = rpc_status.to_status(failed.proto)
        # Not abort_with_status: it would take the place of the request id.
        context.set_trailing_metadata((("x-request-id", identity), *status.trailing_metadata))
        context.abort(status.code, status.details)

    def _answer(
        self,
        path: str,
        method: Method,
        request: bytes,
        context: grpc.ServicerContext,
        identity: str,
    ) -> bytes:
        if self._closed.is_set():
            raise failures.draining()
        if not self._places.acquire(blocking=False):
            raise failures.overloaded(self.settings.max_concurrency)
        try:
            seconds = self._seconds(context)
            if seconds <= 0:
                raise failures.deadline()
            message = _parsed(method.request, request)
            until = time.monotonic() + seconds
            with self._turn(method, message, seconds):
                if not context.is_active():
                    raise failures.cancelled()
                left = until - time.monotonic()
                app = self.live.app
                return dispatch(app, path, message, timeout_seconds=left, request_id=identity)
        except TimeoutError as late:
            raise failures.deadline() from late
        finally:
            self._places.release()

    def _turn(
        self, method: Method, message: Message, seconds: float
    ) -> AbstractContextManager[None]:
        """A call's turn to compute; none for one that waits where others would wait with it."""
        if method.in_store:
            return nullcontext()
        return self._turns.taken(long=method.takes_long(message), seconds=seconds)

    def _seconds(self, context: grpc.ServicerContext) -> float:
        """Time left for the call: the caller's deadline within the maximum, or the default."""
        remaining = context.time_remaining()
        if remaining is None or remaining > NO_DEADLINE_SECONDS:
            remaining = self.settings.default_deadline_seconds
        return min(remaining, self.settings.max_deadline_seconds)

    def _log(
        self, path: str, code: str, started: float, context: grpc.ServicerContext, identity: str
    ) -> None:
        log.info(
            "call",
            extra={
                "method": path,
                "code": code,
                "milliseconds": round(1e3 * (time.perf_counter() - started), 3),
                "peer": context.peer(),
                "request_id": identity,
                "catalog": self.live.app.catalog.version[:12],
            },
        )


def _parsed(kind: type[Message], request: bytes) -> Message:
    """The message; parsed here and not by gRPC, which would call wrong bytes an internal error."""
    try:
        return kind.FromString(request)
    except DecodeError as error:
        raise failures.unreadable(kind.DESCRIPTOR.full_name) from error


def _request_id(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The caller's request id where it is plain, else a new one."""
    for key, value in metadata:
        if key == "x-request-id" and isinstance(value, str):
            plain = value.isascii() and value.isprintable() and len(value) <= REQUEST_ID_LENGTH
            if plain and value:
                return value
    return uuid.uuid4().hex
