"""The typed client: one method per call, the same for a server and for the embedded engine."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from google.protobuf.message import Message

from sizewright.v1 import catalog_pb2, catalog_service_pb2, sizing_service_pb2
from sizewright_client.transport import Transport
from sizewright_client.upkeep_calls import UpkeepCalls

if TYPE_CHECKING:
    from sizewright_client.remote import Retries, Tls

DEFAULT_TIMEOUT_SECONDS = 10.0
_SIZING = "/sizewright.v1.SizingService/"
_CATALOG = "/sizewright.v1.CatalogService/"


class SizingClient(UpkeepCalls):
    """Asks what memory a workload takes and which machine runs it for the least money.

    Make one with `connect` or `embedded`, and close it, best by `with`. Every call raises
    SizingError (see `errors.py`), and TypeError for another call's request;
    `timeout_seconds` overrides the client's own for one call.
    """

    def __init__(
        self, transport: Transport, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        self._transport = transport
        self._timeout_seconds = timeout_seconds

    @classmethod
    def connect(
        cls,
        target: str,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        retries: Retries | None = None,
    ) -> Self:
        """A client of the server at `target`: "host:port", "unix:/path" or "dns:///name:port".

        Without `tls` the channel is plain, which a server takes on loopback and unix sockets only.
        """
        from sizewright_client import remote

        transport = remote.RemoteTransport(
            target, token=token, tls=tls, retries=retries or remote.Retries()
        )
        return cls(transport, timeout_seconds=timeout_seconds)

    @classmethod
    def embedded(cls, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> Self:
        """A client of the engine in this process: no server, no credentials, no network."""
        from sizewright_client.embedded import EmbeddedTransport

        return cls(EmbeddedTransport(), timeout_seconds=timeout_seconds)

    def estimate(
        self,
        request: sizing_service_pb2.EstimateRequest,
        *,
        timeout_seconds: float | None = None,
    ) -> sizing_service_pb2.EstimateResponse:
        """The memory of a workload under one layout."""
        _check_type(request, sizing_service_pb2.EstimateRequest)
        return self._transport.call(
            _SIZING + "Estimate",
            request,
            sizing_service_pb2.EstimateResponse,
            self._timeout(timeout_seconds),
        )

    def recommend(
        self,
        request: sizing_service_pb2.RecommendRequest,
        *,
        timeout_seconds: float | None = None,
    ) -> sizing_service_pb2.RecommendResponse:
        """The plans that fit a workload, cheapest first. Empty when nothing fits."""
        _check_type(request, sizing_service_pb2.RecommendRequest)
        return self._transport.call(
            _SIZING + "Recommend",
            request,
            sizing_service_pb2.RecommendResponse,
            self._timeout(timeout_seconds),
        )

    def batch_recommend(
        self,
        request: sizing_service_pb2.BatchRecommendRequest,
        *,
        timeout_seconds: float | None = None,
    ) -> sizing_service_pb2.BatchRecommendResponse:
        """Recommend for several workloads; a bad one has its error in its own result."""
        _check_type(request, sizing_service_pb2.BatchRecommendRequest)
        return self._transport.call(
            _SIZING + "BatchRecommend",
            request,
            sizing_service_pb2.BatchRecommendResponse,
            self._timeout(timeout_seconds),
        )

    def check_fit(
        self,
        request: sizing_service_pb2.CheckFitRequest,
        *,
        timeout_seconds: float | None = None,
    ) -> sizing_service_pb2.CheckFitResponse:
        """Whether a workload fits a given machine."""
        _check_type(request, sizing_service_pb2.CheckFitRequest)
        return self._transport.call(
            _SIZING + "CheckFit",
            request,
            sizing_service_pb2.CheckFitResponse,
            self._timeout(timeout_seconds),
        )

    def catalog_status(
        self, *, timeout_seconds: float | None = None
    ) -> catalog_service_pb2.GetCatalogStatusResponse:
        """Which catalog version is served, and how old it is, provider by provider."""
        return self._transport.call(
            _CATALOG + "GetCatalogStatus",
            catalog_service_pb2.GetCatalogStatusRequest(),
            catalog_service_pb2.GetCatalogStatusResponse,
            self._timeout(timeout_seconds),
        )

    def instance_type(
        self, name: str, *, timeout_seconds: float | None = None
    ) -> catalog_pb2.InstanceType:
        """One instance type by its name, "providers/{provider}/instanceTypes/{type}".

        Raises UnknownNameError, with near names in its message, when there is none.
        """
        return self._transport.call(
            _CATALOG + "GetInstanceType",
            catalog_service_pb2.GetInstanceTypeRequest(name=name),
            catalog_service_pb2.GetInstanceTypeResponse,
            self._timeout(timeout_seconds),
        ).instance_type

    def instance_types(
        self,
        request: catalog_service_pb2.ListInstanceTypesRequest,
        *,
        timeout_seconds: float | None = None,
    ) -> Iterator[catalog_pb2.InstanceType]:
        """Every instance type that `request` asks for, page after page, ordered by name."""
        page = catalog_service_pb2.ListInstanceTypesRequest()
        page.CopyFrom(request)
        while True:
            answer = self._transport.call(
                _CATALOG + "ListInstanceTypes",
                page,
                catalog_service_pb2.ListInstanceTypesResponse,
                self._timeout(timeout_seconds),
            )
            yield from answer.instance_types
            if not answer.next_page_token:
                return
            page.page_token = answer.next_page_token

    def offers(
        self,
        request: catalog_service_pb2.ListOffersRequest,
        *,
        timeout_seconds: float | None = None,
    ) -> Iterator[catalog_pb2.Offer]:
        """Every priced offer that `request` asks for, page after page, cheapest first."""
        page = catalog_service_pb2.ListOffersRequest()
        page.CopyFrom(request)
        while True:
            answer = self._transport.call(
                _CATALOG + "ListOffers",
                page,
                catalog_service_pb2.ListOffersResponse,
                self._timeout(timeout_seconds),
            )
            yield from answer.offers
            if not answer.next_page_token:
                return
            page.page_token = answer.next_page_token

    def machines(self, *, timeout_seconds: float | None = None) -> Iterator[catalog_pb2.Machine]:
        """Every owned machine that is registered, page after page, ordered by name."""
        page = catalog_service_pb2.ListMachinesRequest()
        while True:
            answer = self._transport.call(
                _CATALOG + "ListMachines",
                page,
                catalog_service_pb2.ListMachinesResponse,
                self._timeout(timeout_seconds),
            )
            yield from answer.machines
            if not answer.next_page_token:
                return
            page.page_token = answer.next_page_token

    def register_machine(
        self,
        machine: catalog_pb2.Machine,
        *,
        validate_only: bool = False,
        timeout_seconds: float | None = None,
    ) -> catalog_service_pb2.RegisterMachineResponse:
        """Registers an owned machine, in the place of one of that name; or only checks it."""
        return self._transport.call(
            _CATALOG + "RegisterMachine",
            catalog_service_pb2.RegisterMachineRequest(
                machine=machine, validate_only=validate_only
            ),
            catalog_service_pb2.RegisterMachineResponse,
            self._timeout(timeout_seconds),
        )

    def delete_machine(self, name: str, *, timeout_seconds: float | None = None) -> None:
        """Forgets an owned machine, "machines/{name}". Raises UnknownNameError without one."""
        self._transport.call(
            _CATALOG + "DeleteMachine",
            catalog_service_pb2.DeleteMachineRequest(name=name),
            catalog_service_pb2.DeleteMachineResponse,
            self._timeout(timeout_seconds),
        )

    def machine_models(
        self, words: str = "", *, timeout_seconds: float | None = None
    ) -> catalog_service_pb2.ListMachineModelsResponse:
        """The library of machines that people own, or those with `words` in their names."""
        return self._transport.call(
            _CATALOG + "ListMachineModels",
            catalog_service_pb2.ListMachineModelsRequest(filter=words),
            catalog_service_pb2.ListMachineModelsResponse,
            self._timeout(timeout_seconds),
        )

    def health(self, service: str = "", *, timeout_seconds: float | None = None) -> str:
        """How a server says it is: "SERVING", "NOT_SERVING"; of one service or, for "", of all."""
        from grpc_health.v1 import health_pb2

        answer = self._transport.call(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest(service=service),
            health_pb2.HealthCheckResponse,
            self._timeout(timeout_seconds),
        )
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def close(self) -> None:
        """Close the connection; nothing for the embedded engine."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _timeout(self, timeout_seconds: float | None) -> float:
        return self._timeout_seconds if timeout_seconds is None else timeout_seconds


def _check_type(request: Message, taken: type[Message]) -> None:
    """Raises TypeError for another call's request: its bytes would be read as something else."""
    if not isinstance(request, taken):
        raise TypeError(f"this call takes {taken.DESCRIPTOR.name}, not {type(request).__name__}")
