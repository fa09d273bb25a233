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
TopOption = Annotated[
    int | None,
    typer.Option(min=1, max=100, metavar="N", help="How many plans to list, up to 100."),
]
ProvidersOption = Annotated[
    list[str] | None,
    typer.Option("--provider", metavar="NAME", help="Only this provider; repeat it, or say a,b."),
]
RegionsOption = Annotated[
    list[str] | None, typer.Option("--region", metavar="NAME", help="Only this region.")
]
PurchaseOption = Annotated[
    list[str] | None, typer.Option(metavar="TERM", help="Only this term: on-demand, spot.")
]
DevicesOption = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="NAME", help="Only this GPU, such as H100-SXM."),
]
MaxNodesOption = Annotated[str | None, typer.Option(metavar="N", help="Most nodes.")]
MaxCostOption = Annotated[
    str | None, typer.Option(metavar="DOLLARS", help="Most dollars per hour, such as 12.50.")
]
MaxPriceAgeOption = Annotated[
    str | None, typer.Option(metavar="SPAN", help="Oldest price, such as 30d.")
]
HeadroomOption = Annotated[
    str | None, typer.Option(metavar="SHARE", help="Share to stay free, such as 10%.")
]
MinDiskOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Least local disk, such as 500GB.")
]
MaxInterruptionOption = Annotated[
    str | None,
    typer.Option(metavar="SHARE", help="Spot that may be taken back in a month, such as 10%."),
]
MinNetworkOption = Annotated[
    str | None, typer.Option(metavar="GBPS", help="Least network of a node, in Gbit/s.")
]
TechniquesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--technique",
        metavar="NAME",
        help="Allow this memory technique: exact, all or a name; repeat it.",
    ),
]
ObjectiveOption = Annotated[
    str | None, typer.Option(metavar="GOAL", help="cost-per-hour, cost-per-job or time.")
]
