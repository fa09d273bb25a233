"""Metrics of the catalog for Prometheus, read from what is published at each scrape.

One process of a server answers, however many workers there are: the figures are the home's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from sizewright_catalog.provider_status import provider_statuses
from sizewright_catalog.published import Served
from sizewright_catalog.refresh.liveness import is_alive
from sizewright_server.wire.statuses import age_seconds

#: Name after "sizewright_catalog_", what it says, and what it is of a provider.
PROVIDER = ["provider"]


class CatalogCollector(Collector):
    """The figures of what is served and of every provider."""

    def __init__(self, served: Callable[[], Served], now: Callable[[], float] = time.time) -> None:
        self._served, self._now = served, now

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: the providers are known at the scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every figure as it is now."""
        served = self._served()
        yield InfoMetricFamily(
            "sizewright_catalog", "The version served", {"version": served.catalog.version}
        )
        yield GaugeMetricFamily(
            "sizewright_catalog_problems",
            "Versions and files of the home that cannot be read",
            len(served.problems),
        )
        yield from self._of_offers(served)
        yield from self._of_refreshes(served)

    def _of_offers(self, served: Served) -> Iterator[Metric]:
        offers = _gauge("offers", "Priced offers")
        oldest = _gauge("oldest_price_timestamp_seconds", "Day of the oldest price")
        for status in provider_statuses(served.catalog):
            offers.add_metric([status.provider], status.offer_count)
            day = status.oldest_price_day.toordinal() - 719_163  # of 1970-01-01
            oldest.add_metric([status.provider], day * 86_400)
        yield from (offers, oldest)

    def _of_refreshes(self, served: Served) -> Iterator[Metric]:
        records, now = served.published.providers, self._now()
        age = _gauge("age_seconds", "Since its rows were taken or found unchanged")
        failures = _gauge("refresh_failures", "Refreshes since then that failed, in a row")
        next_try = _gauge("next_try_timestamp_seconds", "When the next refresh is due")
        held = _gauge("held_back_rows", "Rows that the last refresh held back or marked")
        running = _gauge("refresh_running", "1 while a refresh runs")
        for name in sorted({*served.catalog.providers, *records}):
            record = records.get(name)
            age.add_metric([name], age_seconds(name, record, served.catalog, now))
            if record is None:
                continue
            failures.add_metric([name], record.failures)
            held.add_metric([name], sum(one.count for one in record.held_back))
            alive = record.running is not None and is_alive(record.running)
            running.add_metric([name], float(alive))
            if record.next_try is not None:
                next_try.add_metric([name], record.next_try)
        yield from (age, failures, next_try, held, running)


def _gauge(name: str, words: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"sizewright_catalog_{name}", words, labels=PROVIDER)


class MetricsServer:
    """Answers scrapes over HTTP. Raises OSError when the address cannot be had."""

    def __init__(self, address: tuple[str, int], served: Callable[[], Served]) -> None:
        from wsgiref.simple_server import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            """A scrape is no event."""

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        registry = CollectorRegistry()
        registry.register(CatalogCollector(served))
        host, port = address
        try:
            self._server = make_server(host, port, make_wsgi_app(registry), handler_class=Quiet)
        except OSError as error:
            words = f"cannot listen on {host}:{port} for metrics: {error.strerror}"
            raise OSError(words) from error
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stops answering."""
        self._server.shutdown()
        self._server.server_close()
