"""What can go wrong with a call, as exceptions made from the server's rich error details."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field of a request: its path, and what would be right."""

    field: str
    description: str


class SizingError(Exception):
    """A call that was not answered.

    `code` is the gRPC status code by name, `reason` the stable upper-case reason the server gave,
    `metadata` the facts beside it, and `violations` every wrong field of the request.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = violations
        super().__init__(f"{code}: {message}")


class InvalidRequestError(SizingError):
    """The request says something that no workload can be (INVALID_ARGUMENT, OUT_OF_RANGE)."""


class UnknownNameError(SizingError):
    """A resource that is not there (NOT_FOUND)."""


class AccessError(SizingError):
    """No token, or one that may not do this (UNAUTHENTICATED, PERMISSION_DENIED)."""


class UnavailableError(SizingError):
    """The server cannot be reached or takes no more calls now (UNAVAILABLE, RESOURCE_EXHAUSTED)."""


class DeadlineError(SizingError):
    """The answer did not come in time (DEADLINE_EXCEEDED, CANCELLED)."""


class CatalogError(SizingError):
    """The catalog is missing or too old for what was asked (FAILED_PRECONDITION)."""


class ServerError(SizingError):
    """Anything else: a fault of the server, or a call it does not have."""


_ERRORS: dict[str, type[SizingError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "OUT_OF_RANGE": InvalidRequestError,
    "NOT_FOUND": UnknownNameError,
    "UNAUTHENTICATED": AccessError,
    "PERMISSION_DENIED": AccessError,
    "UNAVAILABLE": UnavailableError,
    "RESOURCE_EXHAUSTED": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "CANCELLED": DeadlineError,
    "FAILED_PRECONDITION": CatalogError,
}


def error_of_status(code: str, message: str, status: bytes | None) -> SizingError:
    """The exception for a status: its code's name, its message, and its details if it had any.

    `status` is a serialised google.rpc.Status, as the trailing metadata carry it.
    """
    kind = _ERRORS.get(code, ServerError)
    if not status:
        return kind(code, message)
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    try:
        for detail in status_pb2.Status.FromString(status).details:
            if detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
            elif detail.Is(bad_request.DESCRIPTOR):
                detail.Unpack(bad_request)
    except DecodeError:
        return kind(code, message, reason="UNREADABLE_ERROR_DETAILS")
    return kind(
        code,
        message,
        reason=info.reason,
        metadata=info.metadata,
        violations=tuple(
            Violation(violation.field, violation.description)
            for violation in bad_request.field_violations
        ),
    )
