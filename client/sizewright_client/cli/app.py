"""The command line: its commands and what it says of itself."""

from __future__ import annotations

from typing import Annotated

import typer

from sizewright_client.cli import catalog, catalog_files, export, machine, machines, observe, sizing
from sizewright_client.cli.exit_codes import EXIT_CODES_HELP

app = typer.Typer(
    name="sizewright",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
sizing.register(app)
machine.register(app)
export.register(app)
observe.register(app)
catalog_files.register(catalog.app)
app.add_typer(catalog.app, name="catalog")
app.add_typer(machines.app, name="machine")


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed_version

        typer.echo(f"sizewright {installed_version('sizewright')}")
        raise typer.Exit


@app.callback(epilog=EXIT_CODES_HELP)
def sizewright(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Tell what memory a machine-learning job takes, and which machine runs it for the least money.

    Data goes to standard output, everything else to standard error. NO_COLOR and FORCE_COLOR are
    honoured. With no --server the engine and its catalog run right here, without a network.

    \b
    Examples:
      sizewright recommend examples/llama3-8b-sft.yaml
      sizewright estimate job.yaml --explain
      sizewright check job.yaml --on aws/p5.48xlarge
    """
