"""The engine in this process: the one module of the client that imports the server.

It calls the same dispatcher as the gRPC server, so answers and errors are the same to the byte.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from sizewright_client.errors import SizingError, error_of_status
from sizewright_client.transport import Response

if TYPE_CHECKING:
    from sizewright.v1 import catalog_pb2


class EmbeddedTransport:
    """Calls the engine over the bundled catalog, without a socket."""

    def __init__(self) -> None:
        from sizewright_server.servicer import embedded_app

        try:
            self._app = embedded_app()
        except ValueError as wrong:
            # The file of private prices that SIZEWRIGHT_PRICE_OVERRIDES names.
            raise error_of_status("FAILED_PRECONDITION", str(wrong), None) from wrong

    def call(
        self,
        method: str,
        request: Message,
        response_type: type[Response],
        timeout_seconds: float,
    ) -> Response:
        """The engine's answer. Raises SizingError."""
        from sizewright_server.failures import CallFailed
        from sizewright_server.servicer import dispatch

        try:
            answer = dispatch(self._app, method, request, timeout_seconds=timeout_seconds)
        except CallFailed as failed:
            raise error_of_status(failed.code, failed.message, failed.status) from failed
        return response_type.FromString(answer)

    def stream(
        self,
        method: str,
        request: Message,
        response_type: type[Response],
        timeout_seconds: float | None,
    ) -> Generator[Response, None, None]:
        """The engine's answers. Raises SizingError."""
        from sizewright_server.failures import CallFailed
        from sizewright_server.refreshing.streams import dispatch_stream, embedded_call

        call = embedded_call(timeout_seconds)
        try:
            for answer in dispatch_stream(call, method, request):
                if not isinstance(answer, response_type):
                    raise SizingError("INTERNAL", f"{method} answered a {type(answer).__name__}")
                yield answer
        except CallFailed as failed:
            raise error_of_status(failed.code, failed.message, failed.status) from failed
        finally:
            call.live.close()

    def close(self) -> None:
        """Nothing to let go of: the catalog stays mapped for the next client."""


def preset_names() -> tuple[str, ...]:
    """The architectures that a request can name and the engine can size."""
    from sizewright_server.estimation.presets import preset_names as names

    return tuple(names())


def local_machine(*, idle: bool = False) -> catalog_pb2.Machine:
    """This machine as a job sees it now, with what was read on it; `idle`: as if nothing else ran.

    Processors, GPUs through NVML, and the memory that control groups and others leave.
    """
    from sizewright_catalog.local import profile
    from sizewright_server.wire.machine_messages import profile_message

    return profile_message(profile(idle=idle))


def export_version(path: Path, version: str) -> str:
    """Writes a version of the user's home to a file; its hash. Raises TransferFailed."""
    from sizewright_catalog.home import default_home
    from sizewright_catalog.transfer import TransferError, export_version

    try:
        return export_version(default_home(), path, version)
    except TransferError as error:
        raise TransferFailed(str(error)) from error


def import_version(path: Path) -> str:
    """Makes a file's version the one that is served; its hash. Raises TransferFailed."""
    from sizewright_catalog.home import default_home
    from sizewright_catalog.transfer import TransferError, import_version

    try:
        url = os.environ.get("SIZEWRIGHT_STORE_URL") or None
        return import_version(default_home(), path, url).version
    except TransferError as error:
        raise TransferFailed(str(error)) from error


class TransferFailed(Exception):
    """A version that could not be exported or imported; the text says why."""


def serve(given: dict[str, Any]) -> int:
    """Serve until SIGTERM or SIGINT with the settings given, else those of the environment.

    Returns the exit status. Raises ServeError naming every setting that is wrong, or why the
    server cannot start.
    """
    from pydantic import ValidationError

    from sizewright_catalog.overrides import OverridesError
    from sizewright_catalog.snapshot import SnapshotError
    from sizewright_server import serve as server
    from sizewright_server.settings import ServerSettings
    from sizewright_server.tokens import TokenFileError

    try:
        settings = ServerSettings(**given)
    except ValidationError as wrong:
        raise ServeError(
            [
                f"{_option(item['loc'])}{item['msg'].removeprefix('Value error, ')}"
                for item in wrong.errors(include_url=False)
            ]
        ) from wrong
    try:
        return server.serve(settings)
    except (SnapshotError, OverridesError, TokenFileError, OSError, RuntimeError) as error:
        raise ServeError([str(error)]) from error


class ServeError(Exception):
    """The server cannot start; `problems` says why, one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _option(location: tuple[int | str, ...]) -> str:
    return f"--{str(location[0]).replace('_', '-')}: " if location else ""
