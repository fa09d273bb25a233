"""A refresh while it runs, on standard error: bars on a terminal, elsewhere a line a stage."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sizewright.v1 import catalog_service_pb2 as pb
from sizewright_client.cli.options import Output
from sizewright_client.cli.streams import emit, say
from sizewright_client.render.figures import count, printable

ENDS = ("done", "failed", "cancelled")


def following(
    events: Iterator[pb.RefreshCatalogResponse], output: Output
) -> Iterator[pb.RefreshCatalogResponse]:
    """The last event of each provider, showing the others as they come."""
    if output in (Output.JSON, Output.YAML):
        from sizewright_client.structured import as_line

        for event in events:
            emit(as_line(event))
            if event.stage in ENDS:
                yield event
    elif sys.stderr.isatty():
        yield from _bars(events)
    else:
        yield from _lines(events)


def _bars(events: Iterator[pb.RefreshCatalogResponse]) -> Iterator[pb.RefreshCatalogResponse]:
    columns = (
        TextColumn("{task.fields[provider]}"),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[came]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = {}
        for event in events:
            name = printable(event.provider)
            if name not in tasks:
                tasks[name] = progress.add_task("start", provider=name, came="", total=None)
            came = f"{count(event.offer_count)} offers" if event.offer_count else ""
            total = event.scope_count or None
            progress.update(tasks[name], description=event.stage)
            if total:
                progress.update(
                    tasks[name], completed=event.done_scope_count, total=total, came=came
                )
            if event.stage in ENDS:
                yield event


def _lines(events: Iterator[pb.RefreshCatalogResponse]) -> Iterator[pb.RefreshCatalogResponse]:
    told: dict[str, tuple[str, int]] = {}
    for event in events:
        mark = (event.stage, event.done_scope_count)
        if told.get(event.provider) != mark and event.stage not in ENDS:
            told[event.provider] = mark
            scopes = f" {event.done_scope_count} of {event.scope_count}" * bool(event.scope_count)
            came = f", {count(event.offer_count)} offers" * bool(event.offer_count)
            say(f"{event.provider}: {event.stage}{scopes}{came}")
        if event.stage in ENDS:
            yield event
