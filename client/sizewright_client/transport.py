"""How a call reaches an engine: one method, so that a socket and the same process look alike."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol, TypeVar

from google.protobuf.message import Message

Response = TypeVar("Response", bound=Message)


class Transport(Protocol):
    """Carries calls to an engine."""

    def call(
        self,
        method: str,
        request: Message,
        response_type: type[Response],
        timeout_seconds: float,
    ) -> Response:
        """The answer of `method` ("/package.Service/Method"). Raises SizingError."""
        ...

    def stream(
        self,
        method: str,
        request: Message,
        response_type: type[Response],
        timeout_seconds: float | None,
    ) -> Generator[Response, None, None]:
        """The answers of a streaming `method`, as they come. Raises SizingError.

        Closing the iterator cancels the call.
        """
        ...

    def close(self) -> None:
        """Let go of what the transport holds. Calls after this are a mistake."""
        ...
