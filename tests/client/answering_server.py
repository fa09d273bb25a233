"""A gRPC server that answers as a workload's name tells it to, for what reads answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

import sample_answers
from sizewright.v1 import catalog_service_pb2, plan_pb2, sizing_service_pb2

TOKEN = "right"
_CALLS_OF_TWICE = count()
# Set once a call of a workload named "stuck" has come in.
STUCK = threading.Event()
_VERDICTS = {"no": plan_pb2.VERDICT_NO, "tight": plan_pb2.VERDICT_TIGHT}


def _details(code: grpc.StatusCode, message: str) -> bytes:
    number: int = code.value[0]
    info, bad_request = any_pb2.Any(), any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason="TOLD_TO", metadata={"model": "x"}))
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        for field, description in (
            ("workload.training.micro_batch", "must be at least 1"),
            ("workload.training.precision", "'fp31' is unknown; did you mean fp32?"),
        )
    ]
    bad_request.Pack(error_details_pb2.BadRequest(field_violations=violations))
    details = [info, bad_request] if code is grpc.StatusCode.INVALID_ARGUMENT else [info]
    status: Message = status_pb2.Status(code=number, message=message, details=details)
    return status.SerializeToString()


def _obey(name: str, context: grpc.ServicerContext) -> None:
    if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid token")
    if name == "slow":
        time.sleep(1)
    if name == "stuck":
        STUCK.set()
        time.sleep(5)
    if name == "twice" and next(_CALLS_OF_TWICE) == 0:
        context.abort(grpc.StatusCode.UNAVAILABLE, "come again")
    if name in grpc.StatusCode.__members__:
        code = grpc.StatusCode[name]
        context.set_trailing_metadata((("grpc-status-details-bin", _details(code, "as told")),))
        context.abort(code, "as told")


def _estimate(
    request: sizing_service_pb2.EstimateRequest, context: grpc.ServicerContext
) -> sizing_service_pb2.EstimateResponse:
    _obey(request.workload.name, context)
    return sizing_service_pb2.EstimateResponse(estimate=sample_answers.memory_estimate())


def _recommend(
    request: sizing_service_pb2.RecommendRequest, context: grpc.ServicerContext
) -> sizing_service_pb2.RecommendResponse:
    _obey(request.workload.name, context)
    if request.workload.name == "no":
        return sample_answers.nothing_fits()
    return sample_answers.recommendation()


def _check(
    request: sizing_service_pb2.CheckFitRequest, context: grpc.ServicerContext
) -> sizing_service_pb2.CheckFitResponse:
    _obey(request.workload.name, context)
    verdict = _VERDICTS.get(request.workload.name, plan_pb2.VERDICT_FITS)
    return sample_answers.check_answer(verdict)


def _list_types(
    request: catalog_service_pb2.ListInstanceTypesRequest, context: grpc.ServicerContext
) -> catalog_service_pb2.ListInstanceTypesResponse:
    _obey(request.provider, context)
    start = int(request.page_token or 0)
    types = [offer.instance_type for offer in sample_answers.offers()]
    end = start + request.page_size
    return catalog_service_pb2.ListInstanceTypesResponse(
        instance_types=types[start:end], next_page_token=str(end) if end < len(types) else ""
    )


def _handler(answer: Callable[[Any, grpc.ServicerContext], Any], kind: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=kind.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


@contextmanager
def answering_server(credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """The target of a server that runs while the context is open, over TLS with credentials."""
    server = grpc.server(ThreadPoolExecutor(4))
    handlers = {
        "Estimate": _handler(_estimate, sizing_service_pb2.EstimateRequest),
        "Recommend": _handler(_recommend, sizing_service_pb2.RecommendRequest),
        "CheckFit": _handler(_check, sizing_service_pb2.CheckFitRequest),
    }
    listing = {
        "ListInstanceTypes": _handler(_list_types, catalog_service_pb2.ListInstanceTypesRequest)
    }
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("sizewright.v1.SizingService", handlers),
            grpc.method_handlers_generic_handler("sizewright.v1.CatalogService", listing),
        )
    )
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
