"""Writes an answer to standard output in the way that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from sizewright.v1 import sizing_service_pb2
from sizewright_client.cli.options import Output
from sizewright_client.cli.streams import emit

if TYPE_CHECKING:
    from sizewright_client.render.page import Page


Streamed = TypeVar("Streamed", bound=Message)


def emit_answer(
    answer: Message, output: Output, *, csv: Callable[[], str], table: Callable[[Page], None]
) -> None:
    """Write `answer`; `csv` and `table` make the two forms that depend on what it is."""
    if output is Output.TABLE:
        from sizewright_client.render.page import page_for

        page = page_for(sys.stdout)
        table(page)
        emit(page.text())
    elif output is Output.CSV:
        emit(csv())
    else:
        from sizewright_client.structured import as_json, as_yaml

        emit(as_json(answer) if output is Output.JSON else as_yaml(answer))


def emit_stream(
    answer: Streamed, output: Output, *, table: Callable[[Page, Streamed], None]
) -> None:
    """Write one answer of a stream: a page, or a line of JSON."""
    if output in (Output.TABLE, Output.CSV):
        from sizewright_client.render.page import page_for

        page = page_for(sys.stdout)
        table(page, answer)
        emit(page.text())
    else:
        from sizewright_client.structured import as_line

        emit(as_line(answer))


def emit_estimate(
    answer: sizing_service_pb2.EstimateResponse, output: Output, *, name: str, explain: bool
) -> None:
    """Write an estimate; as CSV one row per part."""

    def table(page: Page) -> None:
        from sizewright_client.render.estimate import put_estimate

        if name:
            page.say(name, style="bold")
        put_estimate(page, answer.estimate, explain=explain)

    def csv() -> str:
        from sizewright_client.structured import parts_as_csv

        return parts_as_csv(answer.estimate)

    emit_answer(answer, output, csv=csv, table=table)


def emit_recommendations(
    answer: sizing_service_pb2.RecommendResponse, output: Output, *, name: str, explain: bool
) -> None:
    """Write recommendations; as CSV one row per plan."""

    def table(page: Page) -> None:
        from sizewright_client.render.recommend import put_recommendations

        put_recommendations(page, answer, name=name, explain=explain)

    def csv() -> str:
        from sizewright_client.structured import plans_as_csv

        return plans_as_csv(answer)

    emit_answer(answer, output, csv=csv, table=table)


def emit_check(
    answer: sizing_service_pb2.CheckFitResponse,
    output: Output,
    *,
    target: str,
    node_count: int,
    explain: bool,
) -> None:
    """Write a check; as CSV one row per pool."""

    def table(page: Page) -> None:
        from sizewright_client.render.check import put_check

        put_check(page, answer, target=target, node_count=node_count, explain=explain)

    def csv() -> str:
        from sizewright_client.structured import pools_as_csv

        return pools_as_csv(answer.pools)

    emit_answer(answer, output, csv=csv, table=table)


def emit_list(
    messages: Sequence[Message],
    output: Output,
    *,
    whole: Message,
    columns: Sequence[str],
    table: Callable[[Page], None],
) -> None:
    """Write a list; `whole` is the message that holds it, `columns` the fields of a CSV row."""

    def csv() -> str:
        from sizewright_client.structured import messages_as_csv

        return messages_as_csv(messages, columns)

    emit_answer(whole, output, csv=csv, table=table)
