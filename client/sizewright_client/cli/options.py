"""The options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


RequestFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Request file, YAML or JSON; - reads standard input.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="json is the proto3 JSON of the response.")
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="SIZEWRIGHT_SERVER",
        metavar="TARGET",
        help="Ask the server at host:port or unix:/path; without it the engine runs right here.",
        show_default=False,
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="File with the server's token; else the variable SIZEWRIGHT_TOKEN is used.",
        show_default=False,
    ),
]
TlsOption = Annotated[bool, typer.Option("--tls", help="Call the server over TLS.")]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        help="PEM file with the certificates to trust; implies --tls.",
        show_default=False,
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option("--timeout", min=0.001, metavar="SECONDS", help="Longest wait for an answer."),
]
ExplainOption = Annotated[
    bool, typer.Option("--explain", help="Show each part's formula with the numbers put in.")
]
