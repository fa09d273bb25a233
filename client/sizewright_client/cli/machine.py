"""`sizewright serve`, `health`, `local` and `presets`."""

from __future__ import annotations

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
from sizewright_client.cli.serve_options import (
    AdminTokenFileOption,
    CallersTokenFileOption,
    CatalogOption,
    DefaultDeadlineSecondsOption,
    DrainDelaySecondsOption,
    GraceSecondsOption,
    HomeOption,
    InsecureOption,
    ListenOption,
    MaxConcurrencyOption,
    MaxDeadlineSecondsOption,
    MaxMessageBytesOption,
    MaxStreamsOption,
    MetricsListenOption,
    PriceOverridesOption,
    ReflectionOption,
    RefreshOption,
    StoreUrlOption,
    TlsCertOption,
    TlsClientCaOption,
    TlsKeyOption,
    WorkersOption,
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
    listen: ListenOption = None,
    insecure: InsecureOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_client_ca: TlsClientCaOption = None,
    token_file: CallersTokenFileOption = None,
    admin_token_file: AdminTokenFileOption = None,
    workers: WorkersOption = None,
    max_concurrency: MaxConcurrencyOption = None,
    default_deadline_seconds: DefaultDeadlineSecondsOption = None,
    max_deadline_seconds: MaxDeadlineSecondsOption = None,
    max_message_bytes: MaxMessageBytesOption = None,
    drain_delay_seconds: DrainDelaySecondsOption = None,
    grace_seconds: GraceSecondsOption = None,
    reflection: ReflectionOption = None,
    catalog: CatalogOption = None,
    home: HomeOption = None,
    store_url: StoreUrlOption = None,
    refresh: RefreshOption = None,
    max_streams: MaxStreamsOption = None,
    metrics_listen: MetricsListenOption = None,
    price_overrides: PriceOverridesOption = None,
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
