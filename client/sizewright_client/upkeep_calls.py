"""The client's calls that keep a catalog fresh and tell what changed in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator

from sizewright.v1 import catalog_pb2, catalog_service_pb2
from sizewright_client.transport import Transport

_CATALOG = "/sizewright.v1.CatalogService/"


class UpkeepCalls(ABC):
    """Refreshes, versions, differences and price histories, as part of `SizingClient`."""

    _transport: Transport

    @abstractmethod
    def _timeout(self, timeout_seconds: float | None) -> float:
        """The time a call may take; None is the client's own."""

    def refresh_catalog(
        self,
        request: catalog_service_pb2.RefreshCatalogRequest,
        *,
        timeout_seconds: float | None = None,
    ) -> Generator[catalog_service_pb2.RefreshCatalogResponse, None, None]:
        """How a refresh goes, while it runs; closing the iterator cancels it.

        Without a time-out it takes as long as its providers take.
        """
        return self._transport.stream(
            _CATALOG + "RefreshCatalog",
            request,
            catalog_service_pb2.RefreshCatalogResponse,
            timeout_seconds,
        )

    def watch_catalog(
        self, *, timeout_seconds: float | None = None
    ) -> Generator[catalog_service_pb2.WatchCatalogResponse, None, None]:
        """The catalog as it is, and again whenever it changes, until the iterator is closed."""
        return self._transport.stream(
            _CATALOG + "WatchCatalog",
            catalog_service_pb2.WatchCatalogRequest(),
            catalog_service_pb2.WatchCatalogResponse,
            timeout_seconds,
        )

    def catalog_versions(
        self, *, timeout_seconds: float | None = None
    ) -> Iterator[catalog_service_pb2.CatalogVersionEntry]:
        """The versions that are kept, newest first."""
        page = catalog_service_pb2.ListCatalogVersionsRequest()
        while True:
            answer = self._transport.call(
                _CATALOG + "ListCatalogVersions",
                page,
                catalog_service_pb2.ListCatalogVersionsResponse,
                self._timeout(timeout_seconds),
            )
            yield from answer.versions
            if not answer.next_page_token:
                return
            page.page_token = answer.next_page_token

    def diff_catalog(
        self,
        request: catalog_service_pb2.DiffCatalogRequest,
        *,
        timeout_seconds: float | None = None,
    ) -> catalog_service_pb2.DiffCatalogResponse:
        """How two versions differ. Raises UnknownNameError for one that is not kept."""
        return self._transport.call(
            _CATALOG + "DiffCatalog",
            request,
            catalog_service_pb2.DiffCatalogResponse,
            self._timeout(timeout_seconds),
        )

    def price_changes(
        self,
        request: catalog_service_pb2.ListPriceChangesRequest,
        *,
        timeout_seconds: float | None = None,
    ) -> Iterator[catalog_pb2.PriceChange]:
        """Every change of an instance type's prices, page after page, newest first."""
        page = catalog_service_pb2.ListPriceChangesRequest()
        page.CopyFrom(request)
        while True:
            answer = self._transport.call(
                _CATALOG + "ListPriceChanges",
                page,
                catalog_service_pb2.ListPriceChangesResponse,
                self._timeout(timeout_seconds),
            )
            yield from answer.changes
            if not answer.next_page_token:
                return
            page.page_token = answer.next_page_token
