"""`sizewright observe -- COMMAND`."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sizewright_client.cli.connection import Connection
from sizewright_client.cli.exit_codes import ExitCode
from sizewright_client.cli.failures import UsageError, reported
from sizewright_client.cli.streams import emit

if TYPE_CHECKING:
    from sizewright.v1 import estimate_pb2

#: A signal's number and this is a shell's exit code for a command that the signal ended.
SIGNALLED = 128
NOT_STARTED = 127


class Report(StrEnum):
    """How the report is written."""

    TABLE = "table"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(context_settings={"ignore_unknown_options": True})(observe)


@reported
def observe(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="What to run, with its arguments.")
    ],
    output: Annotated[
        Report,
        typer.Option("--output", "-o", help="With json the command's output goes to stderr."),
    ] = Report.TABLE,
    estimate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Compare with this: a request file, or the JSON of `sizewright estimate`.",
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option(min=0.005, max=60, metavar="SECONDS", help="Time between looks.")
    ] = 0.1,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the JSON report there.")
    ] = None,
) -> ExitCode:
    """Run a command and tell what memory its processes took.

    The peak is that of the whole tree of processes, shared pages counted once. The exit code is
    the command's own; 127 if it could not be started.

    \b
    Examples:
      sizewright observe -- python train.py
      sizewright observe --estimate job.yaml -- python fit.py
      sizewright observe -o json -- make test | jq .peak_bytes
    """
    from sizewright_client.observe.comparison import compare
    from sizewright_client.observe.run import CommandNotRunError
    from sizewright_client.observe.run import observe as run
    from sizewright_client.render.observe import observation_document, put_observation
    from sizewright_client.render.page import page_for

    expected = None if estimate is None else _estimate(estimate)
    as_json = output is Report.JSON
    try:
        seen = run(command, interval_seconds=interval, output_to_stderr=as_json)
    except CommandNotRunError as error:
        typer.echo(f"sizewright: {error}", err=True)
        raise typer.Exit(NOT_STARTED) from error
    compared = () if expected is None else compare(seen, expected)
    text = json.dumps(observation_document(seen, compared), indent=2) + "\n"
    if report is not None:
        _write(report, text)
    if as_json:
        emit(text)
    else:
        page = page_for(sys.stdout)
        put_observation(page, seen, compared)
        emit(page.text())
    status = seen.exit_status
    raise typer.Exit(status if status >= 0 else SIGNALLED - status)


def _estimate(path: Path) -> estimate_pb2.MemoryEstimate:
    """The estimate of a file: the answer itself, or what the engine says of a request."""
    from sizewright.v1 import sizing_service_pb2
    from sizewright_client.observe.comparison import NoEstimateError, estimate_from_json
    from sizewright_client.request_file import load_request

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read") from error
    if text.lstrip().startswith("{") and '"estimate"' in text:
        try:
            return estimate_from_json(text)
        except NoEstimateError as error:
            raise UsageError(f"{path} {error}") from error
    request = sizing_service_pb2.EstimateRequest(workload=load_request(str(path)).workload)
    with Connection(None, None, False, None, 10.0).open() as client:
        return client.estimate(request).estimate


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
