"""`sizewright machine`: the machines you own, beside the offers in every ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

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

if TYPE_CHECKING:
    from sizewright.v1 import catalog_pb2
    from sizewright_client.client import SizingClient

PREFIX = "machines/"
COLUMNS = (
    "name",
    "model",
    "count",
    "vcpus",
    "cpu_architecture",
    "host_memory.nominal_bytes",
    "host_memory.usable_bytes",
    "accelerators.device",
    "accelerators.count",
    "accelerators.driver_total_bytes",
    "accelerators.usable_bytes",
    "cost_per_hour_nanos_usd",
)
_MODEL_COLUMNS = ("name", "title", *(f"machine.{name}" for name in COLUMNS[3:-1]), "power_watts")

app = typer.Typer(
    help="Register, list and forget the machines you own; they rank beside the offers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog=EXIT_CODES_HELP)
@reported
def add(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="Machines, YAML or JSON; - reads standard input."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of a machine that --model says.")] = "",
    model: Annotated[
        str, typer.Option(help="Model of the library, such as dgx-h100; see machine models.")
    ] = "",
    count: Annotated[int, typer.Option(min=1, help="How many such machines there are.")] = 1,
    cost: Annotated[
        str | None, typer.Option("--cost-per-hour", metavar="DOLLARS", help="What an hour costs.")
    ] = None,
    output: OutputOption = Output.TABLE,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """Register machines of a file, or one by its model.

    A machine says what an hour costs, or what it was bought for and draws, from which the cost of
    an hour is computed. One of the same name is replaced.

    \b
    Examples:
      sizewright machine add lab.yaml
      sizewright machine add --model dgx-h100 --name lab --cost-per-hour 14.50
      sizewright machine add --model workstation-2x-rtx-4090 --server sizing.example:7443 --tls
    """
    from sizewright.v1 import catalog_service_pb2
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.cli.streams import say
    from sizewright_client.machine_file import load_machines
    from sizewright_client.render.machines import put_machines

    if (file is None) == (not model):
        raise UsageError("give a FILE of machines, or --model with what differs")
    if file is not None and (name or cost is not None or count != 1):
        raise UsageError("--name, --count and --cost-per-hour go with --model, not with a FILE")
    machines = load_machines(file) if file is not None else [_of_model(model, name, count, cost)]
    made = []
    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        if len(machines) > 1:
            # All are checked before the first is kept: a wrong one leaves nothing half done.
            for machine in machines:
                client.register_machine(machine, validate_only=True)
        for machine in machines:
            answer = client.register_machine(machine)
            made.append(answer.machine)
            say(f"{'replaced' if answer.replaced else 'registered'} {answer.machine.name}")
    emit_list(
        made,
        output,
        whole=catalog_service_pb2.ListMachinesResponse(machines=made),
        columns=COLUMNS,
        table=lambda page: put_machines(page, made),
    )
    return ExitCode.OK


@app.command("list", epilog=EXIT_CODES_HELP)
@reported
def list_(
    output: OutputOption = Output.TABLE,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """List the machines that are registered.

    \b
    Examples:
      sizewright machine list
      sizewright machine list --server sizing.example:7443 -o json
    """
    from sizewright.v1 import catalog_service_pb2
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.render.machines import put_machines

    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        machines = list(client.machines())
    emit_list(
        machines,
        output,
        whole=catalog_service_pb2.ListMachinesResponse(machines=machines),
        columns=COLUMNS,
        table=lambda page: put_machines(page, machines),
    )
    return ExitCode.OK


@app.command(epilog=EXIT_CODES_HELP)
@reported
def remove(
    name: Annotated[str, typer.Argument(help="Name of the machine.")],
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """Forget a machine.

    \b
    Examples:
      sizewright machine remove lab
    """
    from sizewright_client.cli.streams import say

    full = full_name(name)
    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        client.delete_machine(full)
    say(f"removed {full}")
    return ExitCode.OK


@app.command(epilog=EXIT_CODES_HELP)
@reported
def models(
    words: Annotated[
        str, typer.Argument(metavar="[FILTER]", help="Part of the name, such as dgx or jetson.")
    ] = "",
    output: OutputOption = Output.TABLE,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """List the library of machines that people own, with what of their memory a job can have.

    \b
    Examples:
      sizewright machine models
      sizewright machine models rtx-4090
      sizewright machine models jetson -o csv
    """
    from sizewright_client.cli.answers import emit_list
    from sizewright_client.cli.streams import say
    from sizewright_client.render.machines import put_models

    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        answer = client.machine_models(words)
    if not answer.models:
        say(f"sizewright: no model has {words!r} in its name; sizewright machine models lists all")
        return ExitCode.INVALID_REQUEST
    emit_list(
        answer.models,
        output,
        whole=answer,
        columns=_MODEL_COLUMNS,
        table=lambda page: put_models(page, answer.models),
    )
    return ExitCode.OK


def full_name(written: str) -> str:
    """The resource name of a machine written with or without its prefix."""
    return written if written.startswith(PREFIX) else PREFIX + written


def owned_machine(client: SizingClient, written: str) -> catalog_pb2.Machine:
    """The registered machine of a name, "machines/lab", or else the model of one, "dgx-h100"."""
    from sizewright.v1 import catalog_pb2

    if not written.startswith(PREFIX):
        if not client.machine_models(written).models:
            raise UsageError(
                f"{written!r} is no machine; say local, {{provider}}/{{type}} such as "
                "aws/p5.48xlarge, machines/NAME, or a model of sizewright machine models"
            )
        return catalog_pb2.Machine(name=full_name(written), model=written)
    for machine in client.machines():
        if machine.name == written:
            return machine
    raise UsageError(f"no machine {written!r} is registered; sizewright machine list shows which")


def _of_model(model: str, name: str, count: int, cost: str | None) -> catalog_pb2.Machine:
    """The machine that the options say."""
    from sizewright.v1 import catalog_pb2
    from sizewright_client.quantities import nano_dollars

    try:
        nanos = nano_dollars(cost) if cost is not None else 0
    except ValueError as error:
        raise UsageError(f"--cost-per-hour: {error}") from None
    return catalog_pb2.Machine(
        name=full_name(name or model), model=model, count=count, cost_per_hour_nanos_usd=nanos
    )
