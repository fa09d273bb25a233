"""`sizewright catalog refresh`, `watch`, `versions`, `diff`, `history`, `export` and `import`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from sizewright.v1 import catalog_pb2, catalog_service_pb2
from sizewright_client.cli.connection import Connection
from sizewright_client.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from sizewright_client.cli.failures import UsageError, reported
from sizewright_client.cli.options import (
    CaFileOption,
    Output,
    OutputOption,
    ServerOption,
    TimeoutOption,
    TlsOption,
    TokenFileOption,
)

_VERSION_COLUMNS = ("version", "swap_time", "offer_count", "instance_type_count", "reason")
_CHANGE_COLUMNS = ("change_time", "offer", "before_nanos", "after_nanos", "currency", "kind")
_REFRESH_COLUMNS = ("provider", "stage", "version", "offer_count", "message")

LongTimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", min=0.001, metavar="SECONDS", help="Longest wait; none by default."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    for command in (refresh, watch, versions, diff, history, export):
        app.command(epilog=EXIT_CODES_HELP)(command)
    app.command("import", epilog=EXIT_CODES_HELP)(import_)


@reported
def refresh(
    providers: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROVIDER]...", help="Which; a server knows its own."),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Take what the checks against the last good version hold back.",
        ),
    ] = False,
    output: OutputOption = Output.TABLE,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: LongTimeoutOption = None,
) -> ExitCode:
    """Fetch the types and prices of providers anew, and serve them from then on.

    What is wrong is held back with a reason and the last good rows stay. Ctrl-C cancels; nothing
    half done is ever served. With -o json each event is a line.

    \b
    Examples:
      sizewright catalog refresh aws
      sizewright catalog refresh aws gcp --server sizing.example:7443 --tls
      sizewright catalog refresh aws --accept-changes
    """
    from sizewright_client.cli.progress import following

    request = catalog_service_pb2.RefreshCatalogRequest(
        providers=providers or [], accept_changes=accept_changes
    )
    with Connection(server, token_file, tls, ca_file, timeout or 10.0).open() as client:
        events = client.refresh_catalog(request, timeout_seconds=timeout)
        ended = list(following(events, output))
    return _refreshed(ended, output)


def _refreshed(last: list[catalog_service_pb2.RefreshCatalogResponse], output: Output) -> ExitCode:
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.render.upkeep import put_refreshed

    if output in (Output.TABLE, Output.CSV):
        emit_list(
            last,
            output,
            whole=catalog_service_pb2.RefreshCatalogResponse(),
            columns=_REFRESH_COLUMNS,
            table=lambda page: put_refreshed(page, last),
        )
    good = bool(last) and all(one.stage == "done" for one in last)
    return ExitCode.OK if good else ExitCode.CATALOG


@reported
def watch(
    output: OutputOption = Output.TABLE,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: LongTimeoutOption = None,
) -> ExitCode:
    """Tell which version is served, and again whenever it changes, until Ctrl-C.

    With -o json each change is a line.

    \b
    Examples:
      sizewright catalog watch --server localhost:7443
      sizewright catalog watch -o json | jq -r .version
    """
    from sizewright_client.cli.answers import emit_stream
    from sizewright_client.render.upkeep import put_watched

    with Connection(server, token_file, tls, ca_file, timeout or 10.0).open() as client:
        for now in client.watch_catalog(timeout_seconds=timeout):
            emit_stream(now, output, table=put_watched)
    return ExitCode.OK


@reported
def versions(
    output: OutputOption = Output.TABLE,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """List the versions that are kept, newest first.

    \b
    Examples:
      sizewright catalog versions
    """
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.render.upkeep import put_versions

    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        found = list(client.catalog_versions())
    emit_list(
        found,
        output,
        whole=catalog_service_pb2.ListCatalogVersionsResponse(versions=found),
        columns=_VERSION_COLUMNS,
        table=lambda page: put_versions(page, found),
    )
    return ExitCode.OK


@reported
def diff(
    before: Annotated[
        str, typer.Argument(metavar="[BEFORE]", help="Version; the one before AFTER by default.")
    ] = "",
    after: Annotated[
        str, typer.Argument(metavar="[AFTER]", help="Version; the newest by default.")
    ] = "",
    provider: Annotated[str, typer.Option(help="Only this provider.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most price changes.")] = 20,
    output: OutputOption = Output.TABLE,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """Show how two versions differ: offers and types that came and went, prices that changed most.

    A version is named by its hash or the first characters of it.

    \b
    Examples:
      sizewright catalog diff
      sizewright catalog diff 4ad822a8 --provider aws -o json
    """
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.render.upkeep import put_diff

    request = catalog_service_pb2.DiffCatalogRequest(
        before=before, after=after, provider=provider, max_changes=limit
    )
    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        answer = client.diff_catalog(request)
    emit_list(
        answer.price_changes,
        output,
        whole=answer,
        columns=_CHANGE_COLUMNS,
        table=lambda page: put_diff(page, answer),
    )
    return ExitCode.OK


@reported
def history(
    kind: Annotated[
        str, typer.Argument(metavar="TYPE", help="aws/p5.48xlarge, or the type's full name.")
    ],
    region: Annotated[str, typer.Option(help="Only this region.")] = "",
    purchase: Annotated[
        list[str] | None, typer.Option(metavar="TERM", help="Only on-demand, spot or committed.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most lines.")] = 50,
    output: OutputOption = Output.TABLE,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """Show how the prices of an instance type changed from refresh to refresh, newest first.

    \b
    Examples:
      sizewright catalog history aws/p5.48xlarge --region us-east-1
      sizewright catalog history gcp/a3-highgpu-8g --purchase spot -o csv
    """
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.cli.sizing import instance_type_name
    from sizewright_client.render.upkeep import put_history

    request = catalog_service_pb2.ListPriceChangesRequest(
        instance_type=instance_type_name(kind),
        region=region,
        terms=[_term(word) for word in purchase or []],
        page_size=min(limit, 1000),
    )
    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        found = list(islice(client.price_changes(request), limit))
    emit_list(
        found,
        output,
        whole=catalog_service_pb2.ListPriceChangesResponse(changes=found),
        columns=_CHANGE_COLUMNS,
        table=lambda page: put_history(page, request.instance_type, found),
    )
    return ExitCode.OK


def _term(word: str) -> catalog_pb2.PurchaseTerm.ValueType:
    name = f"PURCHASE_TERM_{word.upper().replace('-', '_')}"
    if name not in ("PURCHASE_TERM_ON_DEMAND", "PURCHASE_TERM_SPOT", "PURCHASE_TERM_COMMITTED"):
        raise UsageError(f"--purchase {word!r} is not on-demand, spot or committed")
    return catalog_pb2.PurchaseTerm.Value(name)


@reported
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, such as c.npz.")],
    version: Annotated[
        str, typer.Option(metavar="HASH", help="Version, or how its hash begins; the one served.")
    ] = "",
) -> ExitCode:
    """Write a version of this machine's catalog to one file.

    The file goes to a machine without a network (`sizewright catalog import`), or straight to
    `sizewright serve --catalog`.

    \b
    Examples:
      sizewright catalog export catalog.npz
    """
    from sizewright_client import embedded
    from sizewright_client.cli.streams import emit

    try:
        emit(f"{embedded.export_version(file, version)}\n")
    except embedded.TransferFailed as error:
        raise UsageError(str(error)) from error
    return ExitCode.OK


@reported
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File that `export` wrote.")],
) -> ExitCode:
    """Serve the version in a file from now on. A damaged file changes nothing.

    \b
    Examples:
      sizewright catalog import catalog.npz
    """
    from sizewright_client import embedded
    from sizewright_client.cli.streams import emit

    try:
        emit(f"{embedded.import_version(file)}\n")
    except embedded.TransferFailed as error:
        raise UsageError(str(error)) from error
    return ExitCode.OK
