"""Bearer tokens: who may call, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sizewright_server import failures

#: Anyone may ask whether the server is well.
OPEN_SERVICES = ("/grpc.health.v1.Health/",)


class TokenFileError(ValueError):
    """A token file that cannot be used."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that may read, and those that may change state as well."""

    read: tuple[bytes, ...] = ()
    admin: tuple[bytes, ...] = ()

    def check(
        self, method: str, changes_state: bool, metadata: Iterable[tuple[str, str | bytes]]
    ) -> None:
        """Raises CallFailed when a call may not be made."""
        if method.startswith(OPEN_SERVICES):
            return
        given = _bearer(metadata)
        is_admin = _known(given, self.admin)
        if self.read and not is_admin and not _known(given, self.read):
            raise failures.unauthenticated()
        if changes_state and self.admin and not is_admin:
            raise failures.denied(method) if given else failures.unauthenticated()


def read_tokens(path: Path | None) -> tuple[bytes, ...]:
    """The tokens of a file, one a line; several let one be replaced while the other still works.

    Raises TokenFileError when the file cannot be read or holds none.
    """
    if path is None:
        return ()
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise TokenFileError(f"cannot read the token file {path}: {error.strerror}") from error
    tokens = tuple(line.strip() for line in lines if line.strip())
    if not tokens:
        raise TokenFileError(f"the token file {path} holds no token")
    return tokens


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    for key, value in metadata:
        text = value if isinstance(value, bytes) else value.encode()
        if key.lower() == "authorization" and text[:7].lower() == b"bearer ":
            return text[7:].strip()
    return b""


def _known(given: bytes, tokens: Sequence[bytes]) -> bool:
    # Every token is compared, so that the time says nothing about which one was near.
    found = False
    for token in tokens:
        found |= hmac.compare_digest(given, token)
    return found
