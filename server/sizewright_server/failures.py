"""What a failed call carries: a status code, a message, and google.rpc details. No gRPC needed."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from sizewright_server.estimation.problems import Violation

DOMAIN = "sizewright"

#: A gRPC client takes 8 KiB of trailers unless told otherwise: the message percent-encoded, the
#: details in base64. What is longer would reach it as another error altogether.
MESSAGE_BYTES = 1_000
DETAIL_BYTES = 3_500
TEXT_BYTES = 500


class CallFailed(Exception):
    """A call that failed with a status. `status` is a serialised google.rpc.Status."""

    def __init__(self, code: str, message: str, details: Sequence[Message]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.proto = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
        for detail in details:
            packed = PackedDetail()
            packed.Pack(detail)
            self.proto.details.append(packed)

    @property
    def status(self) -> bytes:
        """The serialised google.rpc.Status."""
        status: bytes = self.proto.SerializeToString(deterministic=True)
        return status


def invalid(violations: Sequence[Violation]) -> CallFailed:
    """INVALID_ARGUMENT naming every wrong field."""
    told = carried(violations)
    listed = "; ".join(f"{v.field}: {v.description}" for v in told)
    count = len(violations)
    message = f"{count} wrong field{'s' if count != 1 else ''}: {listed}"
    bad = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in told
        ]
    )
    return CallFailed(
        "INVALID_ARGUMENT", _clipped(message, MESSAGE_BYTES), [bad, _info("INVALID_REQUEST")]
    )


def carried(violations: Sequence[Violation]) -> list[Violation]:
    """The violations as a status can carry them: long texts cut, and beyond a few dozen a count."""
    told: list[Violation] = []
    size = 0
    for violation in violations:
        short = Violation(
            _clipped(violation.field, TEXT_BYTES), _clipped(violation.description, TEXT_BYTES)
        )
        size += len(short.field.encode()) + len(short.description.encode()) + 8
        if size > DETAIL_BYTES:
            left = len(violations) - len(told)
            words = f"is wrong too; {left} wrong fields from here on are not listed"
            return [*told, Violation(short.field, words)]
        told.append(short)
    return told


def unreadable(message_type: str) -> CallFailed:
    """INVALID_ARGUMENT: the bytes of the request are no message of its type."""
    return CallFailed(
        "INVALID_ARGUMENT", f"the request is no {message_type}", [_info("UNREADABLE_REQUEST")]
    )


def not_found(message: str, resource_type: str, name: str) -> CallFailed:
    """NOT_FOUND naming the resource."""
    message, name = _clipped(message, MESSAGE_BYTES), _clipped(name, TEXT_BYTES)
    resource = error_details_pb2.ResourceInfo(
        resource_type=resource_type, resource_name=name, description=message
    )
    return CallFailed("NOT_FOUND", message, [resource, _info("NOT_FOUND")])


def overloaded(limit: int) -> CallFailed:
    """RESOURCE_EXHAUSTED: as many calls run as the server takes."""
    message = f"the server runs {limit} calls, as many as it takes; try again"
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=100_000_000))
    return CallFailed("RESOURCE_EXHAUSTED", message, [retry, _info("OVERLOADED")])


def draining() -> CallFailed:
    """UNAVAILABLE: the server finishes what it has and goes."""
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=500_000_000))
    message = "the server is about to stop and takes no new calls; try again"
    return CallFailed("UNAVAILABLE", message, [retry, _info("DRAINING")])


def answer_too_large(limit: int) -> CallFailed:
    """RESOURCE_EXHAUSTED: the answer would be larger than the server sends."""
    message = (
        f"the answer is larger than {limit:,} bytes; ask for fewer requests or results at once, "
        "or without explain"
    )
    return CallFailed("RESOURCE_EXHAUSTED", message, [_info("ANSWER_TOO_LARGE")])


def fixed_catalog() -> CallFailed:
    """FAILED_PRECONDITION: the catalog is one file, which nothing refreshes."""
    message = "the server serves one catalog file; start it with a home to keep versions"
    return CallFailed("FAILED_PRECONDITION", message, [_info("FIXED_CATALOG")])


def store_broken(message: str) -> CallFailed:
    """UNAVAILABLE: the store cannot be read; the catalog is served all the same."""
    return CallFailed("UNAVAILABLE", _clipped(message, MESSAGE_BYTES), [_info("STORE")])


def already_running(message: str) -> CallFailed:
    """ABORTED: a provider is being refreshed already."""
    return CallFailed("ABORTED", _clipped(message, MESSAGE_BYTES), [_info("REFRESH_RUNNING")])


def too_many_streams(limit: int) -> CallFailed:
    """RESOURCE_EXHAUSTED: as many streams are open as the server keeps."""
    message = f"the server keeps {limit} streams, as many as it takes; close one"
    return CallFailed("RESOURCE_EXHAUSTED", message, [_info("TOO_MANY_STREAMS")])


def unauthenticated() -> CallFailed:
    """UNAUTHENTICATED: no token, or one that is not known."""
    message = "a known token is needed: send metadata 'authorization: Bearer TOKEN'"
    return CallFailed("UNAUTHENTICATED", message, [_info("TOKEN_MISSING_OR_UNKNOWN")])


def denied(method: str) -> CallFailed:
    """PERMISSION_DENIED: the token is known and may not do this."""
    return CallFailed("PERMISSION_DENIED", f"{method} needs the admin token", [_info("NOT_ADMIN")])


def deadline() -> CallFailed:
    """DEADLINE_EXCEEDED before the work was done."""
    return CallFailed("DEADLINE_EXCEEDED", "the deadline passed", [_info("DEADLINE")])


def cancelled() -> CallFailed:
    """CANCELLED: whoever asked has gone, and only the log is told."""
    return CallFailed("CANCELLED", "the caller has gone", [_info("CANCELLED")])


def internal(request_id: str) -> CallFailed:
    """INTERNAL: our fault; the log has the rest under the request id."""
    message = f"internal error; quote request id {request_id}"
    return CallFailed("INTERNAL", message, [_info("INTERNAL", request_id=request_id)])


def _clipped(text: str, most: int) -> str:
    """At most `most` bytes of a text as gRPC encodes it, where all but plain ASCII is tripled."""
    size = 0
    for i, letter in enumerate(text):
        size += 1 if letter.isascii() and letter.isprintable() else 3 * len(letter.encode())
        if size > most:
            return text[:i] + "..."
    return text


def _info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
