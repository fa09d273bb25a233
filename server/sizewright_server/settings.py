"""The server's settings: flags over environment over defaults. Nothing else reads either."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sizewright_catalog.providers import registered


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
    home: Path | None = None
    store_url: str | None = None
    price_overrides: Path | None = None
    refresh: str = ""
    max_streams: int = Field(default=16, ge=1, le=1024)
    metrics_listen: str | None = None

    @property
    def unix_path(self) -> str | None:
        """The socket's path, where it is a unix socket."""
        return self.listen.removeprefix("unix:") if self.listen.startswith("unix:") else None

    @property
    def tcp(self) -> tuple[str, int]:
        """Host and port. Raises ValueError where `listen` is not host:port."""
        return _host_and_port(self.listen, "host:port, [ipv6]:port or unix:/path")

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where metrics are scraped. Raises ValueError where it is not host:port."""
        if self.metrics_listen is None:
            return None
        return _host_and_port(self.metrics_listen, "host:port or [ipv6]:port")

    @property
    def refreshed_providers(self) -> tuple[str, ...]:
        """The providers that the server refreshes by itself."""
        return tuple(
            dict.fromkeys(name.strip() for name in self.refresh.split(",") if name.strip())
        )

    @model_validator(mode="after")
    def _check(self) -> ServerSettings:
        _ = self.metrics_address  # raises for one that is none
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        if self.unix_path is not None and self.workers > 1:
            raise ValueError("several workers need host:port, a unix socket takes one")
        if self.catalog is not None and (self.refresh or self.store_url or self.home):
            raise ValueError("catalog is one fixed file: home, store_url and refresh go without it")
        unknown = [name for name in self.refreshed_providers if name not in registered()]
        if unknown:
            there = ", ".join(sorted(registered())) or "none"
            raise ValueError(f"no provider {', '.join(unknown)} to refresh; there are: {there}")
        open_to_others = self.unix_path is None and not _is_loopback(self.tcp[0])
        protected = self.tls_cert is not None and self.token_file is not None
        if open_to_others and not protected and not self.insecure:
            raise ValueError(
                f"{self.listen} is reachable by others: give tls_cert, tls_key and token_file, "
                "listen on loopback or a unix socket, or say insecure"
            )
        return self


def _host_and_port(text: str, forms: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    plain = host and not set("[]:,/") & set(host)
    if not (colon and port.isdecimal() and int(port) < 2**16 and (plain or bracketed)):
        raise ValueError(f"{text!r} is not {forms}")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
