"""A server, its home, and a source that stands in for a cloud: refreshes as clients see them."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from refresh_rig import ALL_OFFERS
from running_server import running, server_process, target_of
from sizewright.v1 import catalog_pb2, catalog_service_pb2
from sizewright_catalog.catalog import Catalog
from sizewright_client import SizingClient
from sizewright_client.errors import (
    CatalogError,
    InvalidRequestError,
    ServerError,
    SizingError,
    UnknownNameError,
)
from stand_in_provider import NAME
from stand_in_source import Source, serving, silence

STAND_INS = Path(__file__).parents[1] / "stand_ins"
EXTRA = f"{NAME}=stand_in_provider:StandIn"
H100 = catalog_service_pb2.ListOffersRequest(provider=NAME, type="g.h100.8", region="east-1")
WATCHED = (
    "offers",
    "age_seconds",
    "refresh_failures",
    "held_back_rows",
    "refresh_running",
    "next_try_timestamp_seconds",
)
REFRESH = catalog_service_pb2.RefreshCatalogRequest(providers=[NAME])


@dataclass
class Standing:
    """A source, and the settings of a server that refreshes from it."""

    source: Source
    home: Path
    variables: dict[str, str]


@pytest.fixture
def standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    source = Source()
    with serving(source) as url:
        variables = {
            "SIZEWRIGHT_EXTRA_PROVIDERS": EXTRA,
            "SIZEWRIGHT_STANDIN_ENDPOINT_URL": url,
            "PYTHONPATH": str(STAND_INS),
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield Standing(source, tmp_path / "home", variables)


@pytest.fixture
def client_of_home(standing: Standing) -> Iterator[SizingClient]:
    with running(home=standing.home) as server, SizingClient.connect(target_of(server)) as client:
        yield client


def status_of(client: SizingClient, provider: str = NAME) -> catalog_pb2.ProviderStatus:
    return next(one for one in client.catalog_status().providers if one.provider == provider)


def test_a_refresh_streams_its_progress_and_its_result_is_served_at_once(
    client_of_home: SizingClient,
) -> None:
    events = list(client_of_home.refresh_catalog(REFRESH))

    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["start", "fetch", "check", "merge", "write", "commit", "publish", "done"]
    assert events[-1].offer_count == ALL_OFFERS
    assert events[-1].changes.added_count == ALL_OFFERS
    assert client_of_home.catalog_status().version == events[-1].version
    assert len(list(client_of_home.offers(H100))) == 2


def test_the_status_tells_of_every_provider_how_its_refreshes_go(
    client_of_home: SizingClient, standing: Standing
) -> None:
    bundled = status_of(client_of_home, "aws")
    list(client_of_home.refresh_catalog(REFRESH))
    good = status_of(client_of_home)
    standing.source.instead = silence(3)
    failed = list(client_of_home.refresh_catalog(REFRESH))[-1]
    failing = status_of(client_of_home)

    assert bundled.refresh_state == catalog_pb2.REFRESH_STATE_BUNDLED
    assert not bundled.HasField("last_success_time")
    assert good.refresh_state == catalog_pb2.REFRESH_STATE_OK
    assert good.offer_count == ALL_OFFERS
    assert good.last_success_time.seconds <= time.time() < good.next_try_time.seconds
    assert good.age.seconds < 60
    assert failed.stage == "failed"
    assert failing.refresh_state == catalog_pb2.REFRESH_STATE_FAILING
    assert failing.last_error == failed.message
    assert failing.failure_count == 1
    assert failing.last_success_time == good.last_success_time
    assert failing.offer_count == ALL_OFFERS


def test_health_stays_serving_while_every_refresh_fails(
    client_of_home: SizingClient, standing: Standing
) -> None:
    standing.source.instead = silence(3)

    assert list(client_of_home.refresh_catalog(REFRESH))[-1].stage == "failed"
    assert client_of_home.health() == "SERVING"
    assert client_of_home.health("sizewright.v1.CatalogService") == "SERVING"
    assert client_of_home.catalog_status().version == Catalog.load().version


def test_a_refresh_that_is_cancelled_changes_nothing_and_its_process_goes(
    client_of_home: SizingClient, standing: Standing
) -> None:
    standing.source.instead = silence(3)
    events = client_of_home.refresh_catalog(REFRESH)
    next(events)
    events.close()

    until = time.monotonic() + 15
    while NAME not in {one.provider for one in client_of_home.catalog_status().providers} or (
        status_of(client_of_home).refresh_state == catalog_pb2.REFRESH_STATE_RUNNING
    ):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert client_of_home.catalog_status().version == Catalog.load().version


def test_a_second_refresh_of_the_same_provider_is_refused_while_one_runs(
    client_of_home: SizingClient, standing: Standing
) -> None:
    standing.source.instead = silence(2)
    first = client_of_home.refresh_catalog(REFRESH)
    while next(first).stage != "fetch":
        pass

    with pytest.raises(ServerError) as caught:
        list(client_of_home.refresh_catalog(REFRESH))
    first.close()

    assert (caught.value.code, caught.value.reason) == ("ABORTED", "REFRESH_RUNNING")


def test_watching_tells_the_version_at_once_and_each_new_one_with_what_changed(
    client_of_home: SizingClient,
) -> None:
    watched = client_of_home.watch_catalog(timeout_seconds=30)
    first = next(watched)
    refresh = threading.Thread(target=lambda: list(client_of_home.refresh_catalog(REFRESH)))
    refresh.start()
    new = next(now for now in watched if now.previous_version)
    watched.close()
    refresh.join()

    assert first.version == new.previous_version == Catalog.load().version
    assert [(one.provider, one.added_count) for one in new.changes] == [(NAME, ALL_OFFERS)]


def test_versions_differences_and_histories_say_what_changed(
    client_of_home: SizingClient, standing: Standing
) -> None:
    list(client_of_home.refresh_catalog(REFRESH))
    standing.source.price_factor = 1.25
    list(client_of_home.refresh_catalog(REFRESH))

    versions = list(client_of_home.catalog_versions())
    diff = client_of_home.diff_catalog(catalog_service_pb2.DiffCatalogRequest())
    history = list(
        client_of_home.price_changes(
            catalog_service_pb2.ListPriceChangesRequest(
                instance_type="providers/standin/instanceTypes/g.h100.8",
                region="east-1",
                terms=[catalog_pb2.PURCHASE_TERM_ON_DEMAND],
            )
        )
    )

    assert [one.reason for one in versions] == ["refresh of standin"] * 2
    assert (diff.before, diff.after) == (versions[1].version, versions[0].version)
    assert [(one.provider, one.dearer_count) for one in diff.changes] == [(NAME, ALL_OFFERS)]
    assert [(one.before_nanos, one.after_nanos) for one in history] == [
        (51_840_000_000, 64_800_000_000)
    ]


def test_histories_come_in_pages(client_of_home: SizingClient, standing: Standing) -> None:
    for factor in (1.0, 1.1, 1.2):
        standing.source.price_factor = factor
        list(client_of_home.refresh_catalog(REFRESH))
    request = catalog_service_pb2.ListPriceChangesRequest(
        instance_type="providers/standin/instanceTypes/c.1", page_size=5
    )

    found = [one.SerializeToString() for one in client_of_home.price_changes(request)]

    assert len(found) == len(set(found)) == 12


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (catalog_service_pb2.DiffCatalogRequest(before="zz"), "no version that is kept"),
        (catalog_service_pb2.DiffCatalogRequest(), "no version before it"),
    ],
)
def test_a_version_that_is_not_kept_is_not_found(
    client_of_home: SizingClient, request_: catalog_service_pb2.DiffCatalogRequest, words: str
) -> None:
    list(client_of_home.refresh_catalog(REFRESH))

    with pytest.raises(UnknownNameError, match=words):
        client_of_home.diff_catalog(request_)


def test_unknown_providers_are_named_with_what_would_be_right(
    client_of_home: SizingClient,
) -> None:
    wrong = catalog_service_pb2.RefreshCatalogRequest(providers=[NAME, "standinn", "aws2"])

    with pytest.raises(InvalidRequestError) as caught:
        list(client_of_home.refresh_catalog(wrong))

    assert [v.field for v in caught.value.violations] == ["providers.1", "providers.2"]
    assert "did you mean" in caught.value.violations[0].description


def test_a_server_of_one_fixed_file_has_nothing_to_refresh(tmp_path: Path) -> None:
    file = Path(str(Catalog.__module__ and __import__("sizewright_catalog").__path__[0]))
    with (
        running(catalog=file / "data/snapshot.npz") as server,
        SizingClient.connect(target_of(server)) as client,
        pytest.raises(CatalogError, match="one catalog file"),
    ):
        list(client.refresh_catalog(REFRESH))


def test_refreshing_needs_the_admin_token_and_watching_does_not(
    standing: Standing, tmp_path: Path
) -> None:
    (tmp_path / "read").write_text("reader\n")
    (tmp_path / "admin").write_text("keeper\n")
    files = {"token_file": tmp_path / "read", "admin_token_file": tmp_path / "admin"}
    with running(home=standing.home, **files) as server:
        target = target_of(server)
        with SizingClient.connect(target, token="reader") as reader:
            with pytest.raises(SizingError) as caught:
                list(reader.refresh_catalog(REFRESH))
            assert next(reader.watch_catalog()).version
        with SizingClient.connect(target, token="keeper") as keeper:
            assert list(keeper.refresh_catalog(REFRESH))[-1].stage == "done"

    assert caught.value.code == "PERMISSION_DENIED"


def test_only_so_many_streams_are_open_and_calls_go_on(standing: Standing) -> None:
    with (
        running(home=standing.home, max_streams=2) as server,
        SizingClient.connect(target_of(server)) as client,
    ):
        open_ = [client.watch_catalog() for _ in range(2)]
        for stream in open_:
            next(stream)
        with pytest.raises(SizingError) as caught:
            next(client.watch_catalog())
        assert client.catalog_status().version
        for stream in open_:
            stream.close()

    assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS")


def test_streams_end_when_the_server_drains(standing: Standing) -> None:
    with running(home=standing.home) as server:
        client = SizingClient.connect(target_of(server))
        stream = client.watch_catalog()
        next(stream)
        started = time.monotonic()
        server.drain()

        assert list(stream) == []
        assert time.monotonic() - started < 3
        client.close()


def test_a_server_refreshes_by_its_schedule_and_every_worker_serves_the_new_version(
    standing: Standing,
) -> None:
    with server_process(
        home=standing.home, refresh=NAME, workers=2, extra_providers=EXTRA,
        standin_endpoint_url=standing.variables["SIZEWRIGHT_STANDIN_ENDPOINT_URL"],
    ) as server:  # fmt: skip
        target = server.target(workers=2)
        server.wait_for("refresh ended")
        server.wait_for("version", count=2)
        versions = set()
        for _ in range(8):
            with SizingClient.connect(target) as client:
                versions.add(client.catalog_status().version)
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0

    assert len(versions) == 1
    assert versions != {Catalog.load().version}


def test_a_scheduled_provider_nobody_knows_stops_the_server_with_what_there_is() -> None:
    with server_process(refresh="nowhere") as server:
        assert server.exit_code() == 2
        assert "no provider nowhere to refresh; there are:" in server.said()


def test_a_listing_that_began_with_one_version_ends_with_it(
    client_of_home: SizingClient,
) -> None:
    begun = catalog_service_pb2.ListInstanceTypesRequest(provider="gcp", page_size=100)
    expected = [kind.name for kind in client_of_home.instance_types(begun)]
    listing = client_of_home.instance_types(begun)
    first = next(listing).name
    list(client_of_home.refresh_catalog(REFRESH))

    assert [first, *(kind.name for kind in listing)] == expected


def test_answers_go_on_while_a_refresh_is_killed_and_the_status_says_so(
    standing: Standing,
) -> None:
    standing.source.instead = silence(5)
    with (
        server_process(
            home=standing.home, refresh=NAME, extra_providers=EXTRA,
            standin_endpoint_url=standing.variables["SIZEWRIGHT_STANDIN_ENDPOINT_URL"],
        ) as server,
        SizingClient.connect(server.target()) as client,
    ):  # fmt: skip
        pid = server.wait_for("refresh started")[0]["pid"]
        until = time.monotonic() + 20
        while NAME not in {one.provider for one in client.catalog_status().providers}:
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        ended = server.wait_for("refresh ended")[0]
        status = status_of(client)

        assert ended["reason"] == "its process ended with signal 9"
        assert status.refresh_state == catalog_pb2.REFRESH_STATE_FAILING
        assert "ended before it could say" in status.last_error
        assert client.health() == "SERVING"
        assert client.catalog_status().version == Catalog.load().version


def test_metrics_tell_the_age_and_the_failures_of_every_provider(standing: Standing) -> None:
    with server_process(
        home=standing.home, refresh=NAME, extra_providers=EXTRA, metrics_listen="127.0.0.1:0",
        standin_endpoint_url=standing.variables["SIZEWRIGHT_STANDIN_ENDPOINT_URL"],
    ) as server:  # fmt: skip
        server.wait_for("refresh ended")
        url = f"http://127.0.0.1:{server.wait_for('metrics')[0]['port']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            said = [line for line in answer.read().decode().splitlines() if line[0] != "#"]

    figures = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in said)}
    of = {key: figures[f'sizewright_catalog_{key}{{provider="standin"}}'] for key in WATCHED}
    assert of["offers"] == ALL_OFFERS
    # A refresh of one provider makes no other one fresh.
    assert of["age_seconds"] < 60 < figures['sizewright_catalog_age_seconds{provider="aws"}']
    assert (of["refresh_failures"], of["held_back_rows"], of["refresh_running"]) == (0, 0, 0)
    assert of["next_try_timestamp_seconds"] > time.time()
    assert figures["sizewright_catalog_problems"] == 0
    assert any(name.startswith("sizewright_catalog_info{version=") for name in figures)


def test_a_metrics_address_that_is_taken_stops_the_server(standing: Standing) -> None:
    with (
        running(home=standing.home) as other,
        server_process(home=standing.home, metrics_listen=target_of(other)) as server,
    ):
        assert server.exit_code() == 2
        assert "for metrics" in server.said()


def test_servers_of_a_shared_store_serve_what_one_of_them_refreshed(
    standing: Standing, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    with (
        running(home=standing.home, store_url=url) as server,
        SizingClient.connect(target_of(server)) as client,
    ):
        version = list(client.refresh_catalog(REFRESH))[-1].version
    with server_process(home=tmp_path / "other", store_url=url) as follower:
        follower.wait_for("version")
        with SizingClient.connect(follower.target()) as client:
            assert client.catalog_status().version == version
