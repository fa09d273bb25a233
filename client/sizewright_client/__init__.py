"""sizewright for Python: a typed client of the sizing service, and the same engine in-process.

from sizewright_client import SizingClient, load_request

with SizingClient.embedded() as client:
    answer = client.recommend(load_request("job.yaml"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sizewright_client.client import SizingClient
    from sizewright_client.errors import SizingError, Violation
    from sizewright_client.problems import RequestFileError
    from sizewright_client.remote import Retries, Tls
    from sizewright_client.request_file import load_request

__all__ = [
    "RequestFileError",
    "Retries",
    "SizingClient",
    "SizingError",
    "Tls",
    "Violation",
    "load_request",
]

_HOMES = {
    "RequestFileError": "problems",
    "Retries": "remote",
    "SizingClient": "client",
    "SizingError": "errors",
    "Tls": "remote",
    "Violation": "errors",
    "load_request": "request_file",
}


def __getattr__(name: str) -> Any:
    # Imported when first asked for: the command line needs none of gRPC for most of what it does.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
