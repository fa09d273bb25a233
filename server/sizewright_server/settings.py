"""The server's settings: flags over environment over defaults. Nothing else reads either."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = ("127.", "localhost:", "[::1]:", "unix:")


class ServerSettings(BaseSettings):
    """Every option of `sizewright serve`; from the environment as SIZEWRIGHT_NAME.

    Raises pydantic.ValidationError naming what is wrong.
    """

    model_config = SettingsConfigDict(env_prefix="SIZEWRIGHT_", frozen=True)

    listen: str = "127.0.0.1:50151"
    insecure: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    token_file: Path | None = None
    admin_token_file: Path | None = None
    workers: int = Field(default=1, ge=1, le=256)
    max_concurrency: int = Field(default=32, ge=1, le=4096)
    default_deadline_seconds: float = Field(default=10.0, gt=0, le=3600)
    max_deadline_seconds: float = Field(default=60.0, gt=0, le=3600)
    max_message_bytes: int = Field(default=4 * 2**20, ge=1024, le=64 * 2**20)
    drain_delay_seconds: float = Field(default=1.0, ge=0, le=300)
    grace_seconds: float = Field(default=25.0, ge=0, le=300)
    reflection: bool = True
    catalog: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> ServerSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        open_to_others = not self.listen.startswith(LOOPBACK)
        protected = self.tls_cert is not None and self.token_file is not None
        if open_to_others and not protected and not self.insecure:
            raise ValueError(
                f"{self.listen} is reachable by others: give tls_cert, tls_key and token_file, "
                "listen on loopback or a unix socket, or say insecure"
            )
        return self
