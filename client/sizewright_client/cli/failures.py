"""Failures as people and scripts see them: a message on stderr, an exit code, no traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from sizewright_client.cli.exit_codes import ExitCode
from sizewright_client.cli.streams import say
from sizewright_client.errors import (
    AccessError,
    CatalogError,
    DeadlineError,
    InvalidRequestError,
    SizingError,
    UnavailableError,
    UnknownNameError,
)
from sizewright_client.problems import RequestFileError, UnreadableRequestFileError

Parameters = ParamSpec("Parameters")

_CODES: tuple[tuple[type[SizingError], ExitCode], ...] = (
    (InvalidRequestError, ExitCode.INVALID_REQUEST),
    (UnknownNameError, ExitCode.INVALID_REQUEST),
    (UnavailableError, ExitCode.UNAVAILABLE),
    (DeadlineError, ExitCode.UNAVAILABLE),
    (AccessError, ExitCode.DENIED),
    (CatalogError, ExitCode.CATALOG),
)


class UsageError(Exception):
    """Something wrong with the command line that no option's type can tell."""


def reported(command: Callable[Parameters, ExitCode]) -> Callable[Parameters, None]:
    """The command with its failures told on stderr and its exit code handed to the shell."""

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except RequestFileError as error:
            code = _tell_file(error)
        except SizingError as error:
            code = _tell_call(error)
        except UsageError as error:
            say(f"sizewright: {error}")
            code = ExitCode.USAGE
        except KeyboardInterrupt:
            say("sizewright: interrupted")
            code = ExitCode.INTERRUPTED
        raise typer.Exit(int(code))

    return run


def unexpected(error: Exception) -> ExitCode:
    """Tell of a fault nobody foresaw, in one line; SIZEWRIGHT_DEBUG=1 shows where it happened."""
    import os

    say(f"sizewright: unexpected {type(error).__name__}: {error}")
    if os.environ.get("SIZEWRIGHT_DEBUG"):
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        say("This is a fault of the program; SIZEWRIGHT_DEBUG=1 shows where it happened.")
    return ExitCode.UNEXPECTED


def _tell_file(error: RequestFileError) -> ExitCode:
    for problem in error.problems:
        say(f"sizewright: {error.file}: {problem}")
    unreadable = isinstance(error, UnreadableRequestFileError)
    return ExitCode.USAGE if unreadable else ExitCode.INVALID_REQUEST


def _tell_call(error: SizingError) -> ExitCode:
    if error.violations:
        for violation in error.violations:
            say(f"sizewright: {violation.field}: {violation.description}")
    else:
        kind, message = error.code.lower().replace("_", " "), error.message
        if message.lower() == kind:  # gRPC's own words for a deadline of this side
            message = "no answer in time; --timeout waits longer"
        say(f"sizewright: {kind}: {message}" if message else f"sizewright: {kind}")
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.UNEXPECTED)
