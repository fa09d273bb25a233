"""Calls over a gRPC channel: TLS, token, deadline, and retries while a server is away."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from sizewright_client.errors import SizingError, error_of_status
from sizewright_client.transport import Response

_STATUS_DETAILS = "grpc-status-details-bin"
_MESSAGE_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tls:
    """How the server proves who it is, and the client too where both must.

    All are PEM bytes. No root certificates means the ones gRPC ships with.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None


@dataclass(frozen=True, slots=True)
class Retries:
    """How often an unavailable server is tried, and how long is waited in between."""

    attempts: int = 4
    initial_backoff_seconds: float = 0.1
    max_backoff_seconds: float = 2.0


class RemoteTransport:
    """Calls one server. Every call reads only or may be repeated, so UNAVAILABLE is retried."""

    def __init__(
        self, target: str, *, token: str | None, tls: Tls | None, retries: Retries
    ) -> None:
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", _service_config(retries)),
            ("grpc.enable_retries", 1),
            ("grpc.max_receive_message_length", _MESSAGE_LIMIT_BYTES),
        ]
        if tls is None:
            self._channel = grpc.insecure_channel(target, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(
                tls.root_certificates, tls.private_key, tls.certificate_chain
            )
            self._channel = grpc.secure_channel(target, credentials, options=options)
        self._metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()

    def call(
        self,
        method: str,
        request: Message,
        response_type: type[Response],
        timeout_seconds: float,
    ) -> Response:
        """The server's answer. Raises SizingError."""
        invoke: grpc.UnaryUnaryMultiCallable[Message, Response] = self._channel.unary_unary(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response_type.FromString,
        )
        try:
            return invoke(request, timeout=timeout_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _sizing_error(error) from None

    def stream(
        self,
        method: str,
        request: Message,
        response_type: type[Response],
        timeout_seconds: float | None,
    ) -> Generator[Response, None, None]:
        """The server's answers. Raises SizingError."""
        invoke: grpc.UnaryStreamMultiCallable[Message, Response] = self._channel.unary_stream(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response_type.FromString,
        )
        call = invoke(request, timeout=timeout_seconds, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise _sizing_error(error) from None
        finally:
            call.cancel()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _service_config(retries: Retries) -> str:
    policy = {
        "maxAttempts": retries.attempts,
        "initialBackoff": f"{retries.initial_backoff_seconds}s",
        "maxBackoff": f"{retries.max_backoff_seconds}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    method: dict[str, Any] = {"name": [{}]}
    if retries.attempts > 1:
        method["retryPolicy"] = policy
    return json.dumps({"methodConfig": [method], "loadBalancingConfig": [{"round_robin": {}}]})


def _sizing_error(error: Any) -> SizingError:
    details = dict(error.trailing_metadata() or ())
    return error_of_status(error.code().name, error.details() or "", details.get(_STATUS_DETAILS))
