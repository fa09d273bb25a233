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
        return SizingClient.connect(
            self.server,
            token=self.token(),
            tls=Tls(root_certificates=roots) if self.tls or roots is not None else None,
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


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
