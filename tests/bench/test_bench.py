"""The bench measures what it says: new workloads are new, an echo echoes, failures count."""

from __future__ import annotations

import csv
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.bench import echo_server
from tests.bench.figures import Figure, timed
from tests.bench.growth import grown
from tests.bench.in_process import ASKED, RECOMMEND, STEPS, recommend_figures, step_figures
from tests.bench.load import read_messages, write_messages
from tests.bench.peers import GPUHUNT_PROVIDERS, write_gpuhunt_rows, write_skypilot_rows
from tests.bench.questions import example, new_workloads, seen_before
from tests.bench.served import drive, echo

from sizewright.v1 import sizing_service_pb2
from sizewright_catalog.catalog import Catalog
from sizewright_server.engines import bundled_sizing
from sizewright_server.service import Sizing
from sizewright_server.servicer import dispatch


@pytest.mark.parametrize("explicit", [True, False])
def test_no_two_new_workloads_are_the_same(explicit: bool) -> None:
    sent = [
        each.workload.SerializeToString() for each in islice(new_workloads(explicit=explicit), 3000)
    ]

    assert len(set(sent)) == 3000


def test_seen_workloads_are_one_workload_under_different_constraints() -> None:
    asked = list(islice(seen_before(), 200))

    assert len({each.workload.SerializeToString() for each in asked}) == 1
    assert len({each.SerializeToString() for each in asked}) == 200


def test_every_question_of_the_bench_is_answered_with_a_plan() -> None:
    app = bundled_sizing()

    names = [figure.name for figure in recommend_figures(app, 2)]
    steps = [figure.name for figure in step_figures(app, 2)]

    assert names == [name for name, _, _ in ASKED]
    assert steps == [f"step: {name}" for name, _, _ in STEPS]


def test_the_echo_answers_as_many_bytes_as_it_is_asked_for() -> None:
    with echo(2) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = channel.unary_unary(echo_server.METHOD)
        request = (24_000).to_bytes(echo_server.LENGTH_BYTES, "big") + b"padding"
        assert len(call(request, timeout=10)) == 24_000


def test_a_load_whose_calls_fail_is_an_error_and_no_figure(tmp_path: Path) -> None:
    file = tmp_path / "messages"
    write_messages(file, [b"\x00" * 8, b"\x00" * 40])
    assert read_messages(file) == [b"\x00" * 8, b"\x00" * 40]

    with echo(2) as server, pytest.raises(RuntimeError, match="UNIMPLEMENTED"):
        drive(server, RECOMMEND, [file], 0.1)


def test_a_figure_says_whether_its_budget_is_kept() -> None:
    assert Figure("a", 1.0, "ms", 1.0).met is True
    assert Figure("a", 1.1, "ms", 1.0).met is False
    assert Figure("a", 0.59, "x", 0.6, "at-least").met is False
    assert Figure("a", 1.0, "ms").met is None


def test_every_call_is_timed_once() -> None:
    made: list[int] = []

    timed([lambda: made.append(1), lambda: made.append(2)])

    assert made == [1, 2]


def test_a_grown_catalog_has_its_own_offers_again_and_again_each_time_dearer() -> None:
    catalog = Catalog.load()

    large = grown(catalog, 2 * catalog.offer_count + 7)

    assert large.offer_count == 2 * catalog.offer_count + 7
    first, again = large.offer(5), large.offer(5 + catalog.offer_count)
    assert first.name == again.name == catalog.offer(5).name
    assert again.price.per_hour_nanos == first.price.per_hour_nanos * 1001 // 1000
    answer = dispatch(Sizing(large), RECOMMEND, example())
    found = sizing_service_pb2.RecommendResponse.FromString(answer)
    assert found.considered_offer_count == large.offer_count
    assert found.recommendations


def test_skypilot_gets_a_row_for_each_type_in_a_region_with_both_prices(tmp_path: Path) -> None:
    catalog = Catalog.load()

    write_skypilot_rows(catalog, tmp_path)

    (file,) = tmp_path.glob(".sky/catalogs/*/aws/vms.csv")
    with file.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    sold = (catalog.offers.currency == catalog.currencies.index("USD")) & (catalog.offers.term < 2)
    kinds = set(
        zip(*(c[sold].tolist() for c in (catalog.offers.type, catalog.offers.region)), strict=False)
    )
    assert len(rows) == len(kinds)
    assert all(row["Price"] or row["SpotPrice"] for row in rows)
    one = next(row for row in rows if row["InstanceType"] == "p5.48xlarge")
    assert (one["AcceleratorName"], one["AcceleratorCount"]) == ("H100-SXM", "8")


def test_the_peer_gets_every_dollar_offer_of_the_catalog(tmp_path: Path) -> None:
    catalog = Catalog.load()

    write_gpuhunt_rows(catalog, tmp_path)

    rows = 0
    for name in GPUHUNT_PROVIDERS:
        rows += (tmp_path / f"{name}.csv").read_bytes().count(b"\n") - 1
    assert rows == int((catalog.offers.currency == catalog.currencies.index("USD")).sum())
