"""The options of `sizewright serve`: each a setting of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ListenOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="host:port or unix:/path.")
]
InsecureOption = Annotated[
    bool | None,
    typer.Option("--insecure", help="Let others in without TLS and a token.", show_default=False),
]
TlsCertOption = Annotated[Path | None, typer.Option(help="PEM file with the certificate.")]
TlsKeyOption = Annotated[Path | None, typer.Option(help="PEM file with its key.")]
TlsClientCaOption = Annotated[
    Path | None, typer.Option(help="PEM file; clients must show a certificate of it.")
]
CallersTokenFileOption = Annotated[
    Path | None, typer.Option(help="File with the tokens that may call, one to a line.")
]
AdminTokenFileOption = Annotated[
    Path | None, typer.Option(help="File with the tokens that may change state.")
]
WorkersOption = Annotated[int | None, typer.Option(help="Processes on the port; 1.")]
MaxConcurrencyOption = Annotated[int | None, typer.Option(help="Calls at once in a process; 32.")]
DefaultDeadlineSecondsOption = Annotated[
    float | None, typer.Option(help="For calls that bring none; 10.")
]
MaxDeadlineSecondsOption = Annotated[
    float | None, typer.Option(help="Longest deadline a call may bring; 60.")
]
MaxMessageBytesOption = Annotated[int | None, typer.Option(help="Largest request; 4194304.")]
DrainDelaySecondsOption = Annotated[
    float | None, typer.Option(help="From SIGTERM to refusing new calls; 1.")
]
GraceSecondsOption = Annotated[float | None, typer.Option(help="For calls that still run; 25.")]
ReflectionOption = Annotated[
    bool | None, typer.Option("--reflection/--no-reflection", help="Tell the contract; on.")
]
CatalogOption = Annotated[
    Path | None, typer.Option(help="Serve this version file alone, for ever.")
]
HomeOption = Annotated[
    Path | None, typer.Option(help="Folder of the catalog; else the user's own.")
]
StoreUrlOption = Annotated[
    str | None, typer.Option(metavar="URL", help="Store that several servers share.")
]
RefreshOption = Annotated[
    str | None,
    typer.Option(metavar="PROVIDERS", help="Keep these fresh, such as aws,gcp; none."),
]
MaxStreamsOption = Annotated[int | None, typer.Option(help="Refreshes and watchers at once; 16.")]
MetricsListenOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="host:port for Prometheus; none.")
]
PriceOverridesOption = Annotated[
    Path | None, typer.Option(help="File of private prices: discounts and contracts.")
]
