"""`sizewright serve`, `health`, `local` and `presets`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sizewright_client.cli.connection import Connection
from sizewright_client.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from sizewright_client.cli.failures import UsageError, reported
from sizewright_client.cli.machines import COLUMNS
from sizewright_client.cli.options import (
    CaFileOption,
    Output,
    OutputOption,
    TimeoutOption,
    TlsOption,
    TokenFileOption,
)


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command(epilog=EXIT_CODES_HELP)(local)
    app.command(epilog=EXIT_CODES_HELP)(presets)
    app.command(epilog=EXIT_CODES_HELP)(health)
    app.command(epilog=EXIT_CODES_HELP)(serve)


@reported
def local(
    idle: Annotated[
        bool, typer.Option("--idle", help="As if nothing else ran here, not as it is now.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> ExitCode:
    """Show this machine as a job sees it now.

    That is its processors, what control groups and other processes leave of its memory, its GPUs
    with the driver's total, what the driver keeps and what is in use, and its disks.

    \b
    Examples:
      sizewright local
      sizewright local --idle -o json
    """
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.embedded import local_machine
    from sizewright_client.render.machines import put_local

    machine = local_machine(idle=idle)
    emit_list(
        [machine],
        output,
        whole=machine,
        columns=COLUMNS,
        table=lambda page: put_local(page, machine),
    )
    return ExitCode.OK


@reported
def presets(
    words: Annotated[
        str, typer.Argument(metavar="[FILTER]", help="Part of the name, such as llama.")
    ] = "",
) -> ExitCode:
    """List the architectures that a request can name.

    Each is a name for `model: {preset: ...}`; one to a line.

    \b
    Examples:
      sizewright presets
      sizewright presets llama-3
    """
    from sizewright_client.cli.streams import emit, say
    from sizewright_client.embedded import preset_names

    names = [name for name in preset_names() if words.lower() in name.lower()]
    if not names:
        say(f"sizewright: no preset has {words!r} in its name; `sizewright presets` lists all")
        return ExitCode.INVALID_REQUEST
    emit("".join(f"{name}\n" for name in names))
    return ExitCode.OK


@reported
def health(
    server: Annotated[
        str,
        typer.Option("--server", envvar="SIZEWRIGHT_SERVER", metavar="TARGET", help="Whom to ask."),
    ],
    service: Annotated[
        str, typer.Option(help="Service to ask about; empty for the whole server.")
    ] = "",
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 5.0,
) -> ExitCode:
    """Ask a server whether it serves.

    The exit code is 0 if it does and 5 if not.

    \b
    Examples:
      sizewright health --server localhost:7443
      sizewright health --server unix:/run/sizewright.sock --service sizewright.v1.SizingService
    """
    from sizewright_client.cli.streams import emit

    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        status = client.health(service)
    emit(f"{status}\n")
    return ExitCode.OK if status == "SERVING" else ExitCode.UNAVAILABLE


@reported
def serve(
    listen: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="host:port or unix:/path.")
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure", help="Let others in without TLS and a token.", show_default=False
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file with the certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with its key.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM file; clients must show a certificate of it.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the tokens that may call, one to a line.")
    ] = None,
    admin_token_file: Annotated[
        Path | None, typer.Option(help="File with the tokens that may change state.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on the port; 1.")] = None,
    max_concurrency: Annotated[
        int | None, typer.Option(help="Calls at once in a process; 32.")
    ] = None,
    default_deadline_seconds: Annotated[
        float | None, typer.Option(help="For calls that bring none; 10.")
    ] = None,
    max_deadline_seconds: Annotated[
        float | None, typer.Option(help="Longest deadline a call may bring; 60.")
    ] = None,
    max_message_bytes: Annotated[int | None, typer.Option(help="Largest request; 4194304.")] = None,
    drain_delay_seconds: Annotated[
        float | None, typer.Option(help="From SIGTERM to refusing new calls; 1.")
    ] = None,
    grace_seconds: Annotated[
        float | None, typer.Option(help="For calls that still run; 25.")
    ] = None,
    reflection: Annotated[
        bool | None, typer.Option("--reflection/--no-reflection", help="Tell the contract; on.")
    ] = None,
    catalog: Annotated[
        Path | None, typer.Option(help="Serve this version file alone, for ever.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Folder of the catalog; else the user's own.")
    ] = None,
    store_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Store that several servers share.")
    ] = None,
    refresh: Annotated[
        str | None,
        typer.Option(metavar="PROVIDERS", help="Keep these fresh, such as aws,gcp; none."),
    ] = None,
    max_streams: Annotated[
        int | None, typer.Option(help="Refreshes and watchers at once; 16.")
    ] = None,
    metrics_listen: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="host:port for Prometheus; none.")
    ] = None,
    price_overrides: Annotated[
        Path | None, typer.Option(help="File of private prices: discounts and contracts.")
    ] = None,
) -> ExitCode:
    """Serve the API over gRPC until SIGTERM, then drain.

    Listens on 127.0.0.1:50151 unless told otherwise. Every option can be given as an environment
    variable too: SIZEWRIGHT_LISTEN, SIZEWRIGHT_TOKEN_FILE and so on.

    \b
    Examples:
      sizewright serve
      sizewright serve --listen unix:/run/sizewright.sock
      sizewright serve --refresh aws,gcp --metrics-listen 127.0.0.1:9464
      sizewright serve --listen 0.0.0.0:7443 --tls-cert c.pem --tls-key k.pem --token-file tokens
    """
    given = {name: value for name, value in locals().items() if value is not None}
    from sizewright_client import embedded

    try:
        status = embedded.serve(given)
    except embedded.ServeError as error:
        raise UsageError("; ".join(error.problems)) from error
    return ExitCode.OK if status == 0 else ExitCode.UNEXPECTED
