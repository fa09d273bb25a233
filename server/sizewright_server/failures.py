"""What a failed call carries: a status code, a message, and google.rpc details. No gRPC needed."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from sizewright_server.estimation.problems import Violation

DOMAIN = "sizewright"


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
    listed = "; ".join(f"{v.field}: {v.description}" for v in violations)
    count = len(violations)
    message = f"{count} wrong field{'s' if count != 1 else ''}: {listed}"
    bad = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in violations
        ]
    )
    return CallFailed("INVALID_ARGUMENT", message, [bad, _info("INVALID_REQUEST")])


def not_found(message: str, resource_type: str, name: str) -> CallFailed:
    """NOT_FOUND naming the resource."""
    resource = error_details_pb2.ResourceInfo(
        resource_type=resource_type, resource_name=name, description=message
    )
    return CallFailed("NOT_FOUND", message, [resource, _info("NOT_FOUND")])


def overloaded(limit: int) -> CallFailed:
    """RESOURCE_EXHAUSTED: as many calls run as the server takes."""
    message = f"the server runs {limit} calls, as many as it takes; try again"
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=100_000_000))
    return CallFailed("RESOURCE_EXHAUSTED", message, [retry, _info("OVERLOADED")])


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


def internal(request_id: str) -> CallFailed:
    """INTERNAL: our fault; the log has the rest under the request id."""
    message = f"internal error; quote request id {request_id}"
    return CallFailed("INTERNAL", message, [_info("INTERNAL", request_id=request_id)])


def _info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
