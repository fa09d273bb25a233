"""From the options to a client: the engine in this process, or a server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sizewright_client.cli.failures import UsageError

if TYPE_CHECKING:
    from sizewright_client.client import SizingClient

TOKEN_VARIABLE = "SIZEWRIGHT_TOKEN"
#: PEM files with the caller's own key and certificate, for servers that ask who calls.
OWN_KEY_VARIABLE = "SIZEWRIGHT_CLIENT_KEY"
OWN_CERTIFICATE_VARIABLE = "SIZEWRIGHT_CLIENT_CERT"


@dataclass(frozen=True, slots=True)
class Connection:
    """Which engine is asked, and how. No server means the engine in this process."""

    server: str | None
    token_file: Path | None
    tls: bool
    ca_file: Path | None
    timeout_seconds: float

    def open(self) -> SizingClient:
        """The client. Raises UsageError for a file that cannot be read."""
        from sizewright_client.client import SizingClient

        if self.server is None:
            if self.token_file is not None or self.tls or self.ca_file is not None:
                raise UsageError("--token-file, --tls and --ca-file need --server")
            return SizingClient.embedded(timeout_seconds=self.timeout_seconds)
        from sizewright_client.remote import Tls

        roots = _content(self.ca_file) if self.ca_file is not None else None
        own = _own_certificate()
        secure = self.tls or roots is not None or own is not None
        return SizingClient.connect(
            self.server,
            token=self.token(),
            tls=Tls(roots, *(own or (None, None))) if secure else None,
            timeout_seconds=self.timeout_seconds,
        )

    def token(self) -> str | None:
        """The token of the file, else of the environment, else none."""
        if self.token_file is None:
            return os.environ.get(TOKEN_VARIABLE) or None
        token = _content(self.token_file).decode("ascii", "replace").strip()
        if not token or not token.isprintable() or not token.isascii():
            raise UsageError(f"{self.token_file} must hold one line with the token")
        return token


def _own_certificate() -> tuple[bytes, bytes] | None:
    """The caller's key and certificate, where the environment names both."""
    key, certificate = (os.environ.get(v) for v in (OWN_KEY_VARIABLE, OWN_CERTIFICATE_VARIABLE))
    if not key and not certificate:
        return None
    if not key or not certificate:
        raise UsageError(f"{OWN_KEY_VARIABLE} and {OWN_CERTIFICATE_VARIABLE} go together")
    return _content(Path(key)), _content(Path(certificate))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
