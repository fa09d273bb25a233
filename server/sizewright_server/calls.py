"""The gRPC side of a call: deadline, token, concurrency, request id, status, one log line.

All of it runs on the event loop that gRPC hands calls to; only work in threads leaves it.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from sizewright_server import failures
from sizewright_server.access_log import AccessLog, Answered
from sizewright_server.failures import CallFailed
from sizewright_server.refreshing.live import LiveCatalog
from sizewright_server.refreshing.streams import STREAMS, Call, Stream, dispatch_stream
from sizewright_server.servicer import METHODS, Method, dispatch
from sizewright_server.settings import ServerSettings
from sizewright_server.tokens import Tokens
from sizewright_server.turns import Turns

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
#: Answers the bytes of a request under a request id: with bytes, or by writing to the context.
Answer: TypeAlias = Callable[[bytes, Context, str], Awaitable[Any]]

#: Characters a request id may have; anything else from outside is replaced by our own.
REQUEST_ID_LENGTH = 64
#: gRPC tells of a call without a deadline as of one that ends in the far future.
NO_DEADLINE_SECONDS = 10 * 365 * 86_400
#: A server that drains goes once no call has come for this long, or none of them ends in time.
QUIET_SECONDS = 0.05
#: A request of more bytes takes long whatever it asks.
LONG_REQUEST_BYTES = 128 * 1024


class Calls:
    """Turns the method table into gRPC handlers over one engine."""

    def __init__(self, live: LiveCatalog, settings: ServerSettings, tokens: Tokens) -> None:
        self.live = live
        self.settings = settings
        self.tokens = tokens
        self.turns = Turns(settings.max_concurrency, settings.max_streams)
        self.log = AccessLog()
        #: Calls that are open, and streams.
        self.running, self.streaming = 0, 0
        self._closed = False
        self._last_arrival = time.monotonic()

    def handlers(self) -> Sequence[grpc.GenericRpcHandler]:
        """One generic handler per service."""
        services: dict[str, dict[str, Any]] = {}
        for path, method in METHODS.items():
            _, service, name = path.split("/")
            handler: Any = grpc.unary_unary_rpc_method_handler(
                self._handler(path, partial(self._answer, path, method), method.changes_state)
            )
            services.setdefault(service, {})[name] = handler
        for path, stream in STREAMS.items():
            _, service, name = path.split("/")
            services.setdefault(service, {})[name] = grpc.unary_stream_rpc_method_handler(
                self._handler(path, partial(self._stream, path, stream), stream.changes_state),
                response_serializer=stream.response.SerializeToString,
            )
        return [grpc.method_handlers_generic_handler(s, table) for s, table in services.items()]

    async def close(self, grace_seconds: float) -> None:
        """Refuses new calls as UNAVAILABLE and waits until none has come for a moment.

        A call that gRPC has taken and not yet handed over when its server stops is cancelled, which
        no client tries again; so every call is given time to arrive here and be refused properly.
        """
        self._closed = True
        self.live.close()
        until = time.monotonic() + grace_seconds
        self._last_arrival = time.monotonic()
        while time.monotonic() < min(until, self._last_arrival + QUIET_SECONDS):
            await asyncio.sleep(QUIET_SECONDS / 5)

    def _handler(self, path: str, answer: Answer, changes_state: bool) -> Any:
        async def handle(request: bytes, context: Context) -> Any:
            started, self._last_arrival = time.perf_counter(), time.monotonic()
            metadata: Any = context.invocation_metadata() or ()
            identity = _request_id(metadata)
            context.set_trailing_metadata((("x-request-id", identity),))
            code = "OK"
            try:
                self.tokens.check(path, changes_state, metadata)
                return await answer(request, context, identity)
            except CallFailed as failed:
                code = failed.code
                await self._abort(context, failed, identity)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            finally:
                self._log(path, code, started, context, identity)

        return handle

    @staticmethod
    async def _abort(context: Context, failed: CallFailed, identity: str) -> None:
        """Ends a call with its status. Raises what gRPC ends a call with."""
        status = rpc_status.to_status(failed.proto)
        # Not abort_with_status: it would take the place of the request id.
        trailing = (("x-request-id", identity), *status.trailing_metadata)
        await context.abort(status.code, status.details, trailing)

    async def _answer(
        self, path: str, method: Method, request: bytes, context: Context, identity: str
    ) -> bytes:
        if self._closed:
            raise failures.draining()
        if self.running >= self.settings.max_concurrency:
            raise failures.overloaded(self.settings.max_concurrency)
        self.running += 1
        try:
            seconds = self._seconds(context)
            if seconds <= 0:
                raise failures.deadline()
            message, until = _parsed(method.request, request), time.monotonic() + seconds
            work = partial(self._work, path, message, until, identity)
            if method.in_store:
                return await self.turns.in_store(work, seconds)
            if len(request) > LONG_REQUEST_BYTES or method.takes_long(message):
                return await self.turns.long(work, seconds)
            return await self.turns.short(work)
        except TimeoutError as late:
            raise failures.deadline() from late
        finally:
            self.running -= 1

    def _work(self, path: str, message: Message, until: float, identity: str) -> bytes:
        """The answer, over the catalog that is served when its turn comes."""
        left = until - time.monotonic()
        if left <= 0:
            raise failures.deadline()
        return dispatch(self.live.app, path, message, timeout_seconds=left, request_id=identity)

    async def _stream(
        self, path: str, stream: Stream, request: bytes, context: Context, identity: str
    ) -> None:
        if self._closed:
            raise failures.draining()
        if self.streaming >= self.settings.max_streams:
            raise failures.too_many_streams(self.settings.max_streams)
        self.streaming += 1
        gone = threading.Event()
        try:
            call = Call(self.live, self.settings.refreshed_providers, gone)
            message = _parsed(stream.request, request)
            messages = dispatch_stream(call, path, message, request_id=identity)
            await self.turns.stream(partial(_write_all, messages, context, _loop()))
        finally:
            gone.set()
            self.streaming -= 1

    def _seconds(self, context: Context) -> float:
        """Time left for the call: the caller's deadline within the maximum, or the default."""
        remaining: float | None = context.time_remaining()
        if remaining is None or remaining > NO_DEADLINE_SECONDS:
            remaining = self.settings.default_deadline_seconds
        return min(remaining, self.settings.max_deadline_seconds)

    def _log(self, path: str, code: str, started: float, context: Context, identity: str) -> None:
        took = round(1e3 * (time.perf_counter() - started), 3)
        version = self.live.app.catalog.version[:12]
        self.log.note(Answered(path, code, took, context.peer(), identity, version))


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def _write_all(
    messages: Iterator[Message], context: Context, loop: asyncio.AbstractEventLoop
) -> None:
    """Sends what a stream says as it says it; it ends with the stream, or with its caller."""
    for message in messages:
        asyncio.run_coroutine_threadsafe(context.write(message), loop).result()


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
    return f"{random.getrandbits(128):032x}"
