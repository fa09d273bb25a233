"""`sizewright export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sizewright_client.cli.connection import Connection
from sizewright_client.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from sizewright_client.cli.failures import UsageError, reported
from sizewright_client.cli.options import (
    CaFileOption,
    DevicesOption,
    MaxNodesOption,
    ProvidersOption,
    PurchaseOption,
    RequestFile,
    ServerOption,
    TimeoutOption,
    TlsOption,
    TokenFileOption,
)
from sizewright_client.cli.streams import emit
from sizewright_client.export.forms import Form

if TYPE_CHECKING:
    from sizewright.v1 import sizing_service_pb2
    from sizewright_client.cli.overrides import Options

AnswerOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Take the plan from this saved answer of `recommend FILE -o json`."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(epilog=EXIT_CODES_HELP)(export)


@reported
def export(
    file: RequestFile,
    to: Annotated[Form, typer.Option(help="What to write the plan as.")],
    rank: Annotated[int, typer.Option(min=1, max=100, help="Which plan of the list.")] = 1,
    answer: AnswerOption = None,
    provider: ProvidersOption = None,
    purchase: PurchaseOption = None,
    device: DevicesOption = None,
    max_nodes: MaxNodesOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """Write a recommended plan as another tool takes it.

    \b
    Machines:   terraform, ec2, ec2-requirements, gcloud
    Schedulers: skypilot, kubernetes, slurm; they start the launcher below
    Training:   torchrun, trainer, accelerate, deepspeed, megatron
    Serving:    vllm, sglang

    \b
    Examples:
      sizewright export job.yaml --to skypilot > task.yaml
      sizewright export job.yaml --to terraform > job.auto.tfvars.json
      sizewright export job.yaml --to gcloud --provider gcp --purchase spot
      sizewright recommend job.yaml -o json > answer.json
      sizewright export job.yaml --answer answer.json --rank 2 --to slurm
    """
    from sizewright_client.cli.overrides import override
    from sizewright_client.export.forms import written
    from sizewright_client.export.selection import ExportError, select
    from sizewright_client.request_file import load_request

    options: Options = {
        "providers": provider,
        "purchase": purchase,
        "devices": device,
        "max_nodes": max_nodes,
    }
    if answer is not None and any(options.values()):
        raise UsageError("--answer is a plan already; ask anew for other constraints")
    request = load_request(file)
    override(request, options)
    request.max_results = max(rank, request.max_results)
    if answer is not None:
        found = _saved(answer)
    else:
        with Connection(server, token_file, tls, ca_file, timeout).open() as client:
            found = client.recommend(request)
    if not found.recommendations:
        typer.echo("sizewright: nothing fits, so there is no plan to export", err=True)
        return ExitCode.NOTHING_FITS
    try:
        emit(written(select(request, found, rank), to))
    except ExportError as error:
        raise UsageError(str(error)) from error
    return ExitCode.OK


def _saved(path: Path) -> sizing_service_pb2.RecommendResponse:
    from google.protobuf.json_format import Parse, ParseError

    from sizewright.v1 import sizing_service_pb2

    try:
        text = path.read_text(encoding="utf-8")
        return Parse(text, sizing_service_pb2.RecommendResponse())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read") from error
    except ParseError as error:
        words = f"{path} is no answer of `sizewright recommend -o json`: {error}"
        raise UsageError(words) from error
