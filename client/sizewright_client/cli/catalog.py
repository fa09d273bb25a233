"""`sizewright catalog`: what is in the catalog, and how old it is."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from sizewright_client.cli import upkeep
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

_STATUS_COLUMNS = (
    "provider",
    "offer_count",
    "instance_type_count",
    "estimated_offer_count",
    "refresh_state",
    "age",
    "last_success_time",
    "failure_count",
    "last_error",
    "next_try_time",
)
_TYPE_COLUMNS = (
    "name",
    "vcpus",
    "cpu_architecture",
    "host_memory.nominal_bytes",
    "host_memory.usable_bytes",
    "accelerators.device",
    "accelerators.count",
    "accelerators.driver_total_bytes",
    "local_disk_bytes",
    "network.bandwidth_gbps",
    "network.fabric",
)
_OFFER_COLUMNS = (
    "name",
    "provider",
    "region",
    "zone",
    "instance_type.type",
    "price.per_hour_nanos_usd",
    "interruption.low_percent",
    "interruption.high_percent",
)

app = typer.Typer(
    help="Show the catalog of instance types and offers, and keep it fresh.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog=EXIT_CODES_HELP)
@reported
def status(
    output: OutputOption = Output.TABLE,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """Tell which version is used, and what it holds of each provider.

    \b
    Examples:
      sizewright catalog status
      sizewright catalog status --server localhost:7443 -o json
    """
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.render.catalog import put_status

    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        answer = client.catalog_status()
    emit_list(
        answer.providers,
        output,
        whole=answer,
        columns=_STATUS_COLUMNS,
        table=lambda page: put_status(page, answer),
    )
    return ExitCode.OK


@app.command("list", epilog=EXIT_CODES_HELP)
@reported
def list_(
    provider: Annotated[str, typer.Option(help="Only this provider.")] = "",
    device: Annotated[str, typer.Option(metavar="NAME", help="Only with this GPU.")] = "",
    region: Annotated[str, typer.Option(help="Only offers in this region.")] = "",
    kind: Annotated[str, typer.Option("--type", help="Only this instance type.")] = "",
    offers: Annotated[
        bool, typer.Option("--offers", help="List priced offers, not types.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most lines.")] = 50,
    output: OutputOption = Output.TABLE,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """List instance types by name, or with --offers what they cost where, cheapest first.

    \b
    Examples:
      sizewright catalog list --provider aws --device H100-SXM
      sizewright catalog list --offers --type p5.48xlarge -o csv
    """
    if (region or kind) and not offers:
        raise UsageError("--region and --type need --offers")
    connection = Connection(server, token_file, tls, ca_file, timeout)
    if offers:
        _emit_offers(connection, (provider, region, kind, device), limit, output)
    else:
        _emit_types(connection, provider, device, limit, output)
    return ExitCode.OK


@app.command(epilog=EXIT_CODES_HELP)
@reported
def show(
    name: Annotated[str, typer.Argument(help="aws/p5.48xlarge, or the type's full name.")],
    output: OutputOption = Output.TABLE,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """Show one instance type: its GPUs, and its memory with what is taken off.

    \b
    Examples:
      sizewright catalog show aws/p5.48xlarge
      sizewright catalog show providers/gcp/instanceTypes/a3-highgpu-8g -o json
    """
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.cli.sizing import instance_type_name
    from sizewright_client.render.catalog import put_machine

    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        answer = client.instance_type(instance_type_name(name))
    emit_list(
        [answer],
        output,
        whole=answer,
        columns=_TYPE_COLUMNS,
        table=lambda page: put_machine(page, answer),
    )
    return ExitCode.OK


upkeep.register(app)


def _emit_types(
    connection: Connection, provider: str, device: str, limit: int, output: Output
) -> None:
    from sizewright.v1 import catalog_service_pb2
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.render.catalog import put_types

    request = catalog_service_pb2.ListInstanceTypesRequest(
        provider=provider, device=device, page_size=min(limit, 1000)
    )
    with connection.open() as client:
        types = list(islice(client.instance_types(request), limit))
    whole = catalog_service_pb2.ListInstanceTypesResponse(instance_types=types)
    emit_list(
        types,
        output,
        whole=whole,
        columns=_TYPE_COLUMNS,
        table=lambda page: put_types(page, types),
    )


def _emit_offers(
    connection: Connection, wanted: tuple[str, str, str, str], limit: int, output: Output
) -> None:
    from sizewright.v1 import catalog_service_pb2
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.render.catalog import put_offers

    provider, region, kind, device = wanted
    request = catalog_service_pb2.ListOffersRequest(
        provider=provider, region=region, type=kind, device=device, page_size=min(limit, 1000)
    )
    with connection.open() as client:
        offers = list(islice(client.offers(request), limit))
    whole = catalog_service_pb2.ListOffersResponse(offers=offers)
    emit_list(
        offers,
        output,
        whole=whole,
        columns=_OFFER_COLUMNS,
        table=lambda page: put_offers(page, offers),
    )
