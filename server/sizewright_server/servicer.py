"""Every call of the contract, by method name: message in, bytes of a message out or CallFailed.

The gRPC server and the embedded engine both call `dispatch`, so that they answer alike.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from google.protobuf.message import Message

from sizewright.v1 import catalog_service_pb2, sizing_service_pb2
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.home import Home
from sizewright_server import failures
from sizewright_server.engines import home_sizing
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.failures import CallFailed
from sizewright_server.long_calls import is_a_long_check, is_a_study
from sizewright_server.planning.plan import PoolFit, worst
from sizewright_server.service import Checked, Sizing
from sizewright_server.wire import catalog as wire_catalog
from sizewright_server.wire import versions as wire_versions
from sizewright_server.wire.estimates import estimate_message, warning_messages
from sizewright_server.wire.paging import TokenOfAnother
from sizewright_server.wire.planning import limit_messages
from sizewright_server.wire.plans import (
    VERDICTS,
    advice_messages,
    pool_messages,
    recommend_response,
    version_message,
)
from sizewright_server.wire.requests import read_check, read_estimate, read_recommend
from sizewright_server.wire.violations import RequestInvalid

log = logging.getLogger("sizewright.calls")

SIZING = "sizewright.v1.SizingService"
CATALOG = "sizewright.v1.CatalogService"
MAX_BATCH = 256
#: Largest answer. A batch stops growing there, whatever the memory.
MAX_ANSWER_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Method:
    """One call: the type of its request and what answers it."""

    request: type[Message]
    #: The answer as a message, or serialised already.
    answer: Callable[[Sizing, Any, float | None], Message | bytes]
    #: Changes state: needs the admin token whenever one is configured.
    changes_state: bool = False
    #: Whether a request takes many times as long as most: short ones do not wait for it.
    takes_long: Callable[[Any], bool] = lambda request: False
    #: Waits for the store, which others may hold for long, and computes little.
    in_store: bool = False


def dispatch(
    app: Sizing,
    method: str,
    request: Message,
    *,
    timeout_seconds: float | None = None,
    request_id: str | None = None,
) -> bytes:
    """Answers one call within `timeout_seconds`, serialised.

    Raises CallFailed; anything unexpected becomes INTERNAL and is logged.
    """
    known = METHODS.get(method)
    if known is None:
        raise CallFailed("UNIMPLEMENTED", f"no method {method}", [])
    until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    try:
        answer = known.answer(app, request, until)
        if not isinstance(answer, bytes):
            answer = answer.SerializeToString(deterministic=True)
        _in_time(until)
        return answer
    except CallFailed:
        raise
    except (RequestInvalid, UnsupportedWorkload) as wrong:
        raise failures.invalid(wrong.violations) from wrong
    except Exception as error:
        identity = request_id or uuid.uuid4().hex
        log.exception("call failed", extra={"method": method, "request_id": identity})
        raise failures.internal(identity) from error


def embedded_app() -> Sizing:
    """The engine over the user's own home, for calls in this process."""
    return home_sizing()


def _estimate(
    app: Sizing, request: sizing_service_pb2.EstimateRequest, until: float | None
) -> Message:
    estimate = app.estimate(read_estimate(request, app.catalog, app.remembered.workload))
    return sizing_service_pb2.EstimateResponse(estimate=estimate_message(estimate))


def _recommend(
    app: Sizing, request: sizing_service_pb2.RecommendRequest, until: float | None
) -> bytes:
    made = app.recommend(read_recommend(request, app.catalog, app.remembered.workload))
    return recommend_response(made.result, made.estimates, app.catalog, app.today())


def _batch(
    app: Sizing, request: sizing_service_pb2.BatchRecommendRequest, until: float | None
) -> Message:
    """Each request alone; a wrong one is an error in its place."""
    if len(request.requests) > MAX_BATCH:
        words = f"has {len(request.requests)} entries; at most {MAX_BATCH}"
        raise RequestInvalid([Violation("requests", words)])
    response = sizing_service_pb2.BatchRecommendResponse()
    size = 0
    for one in request.requests:
        _in_time(until)
        result = response.results.add()
        try:
            result.response.MergeFromString(_recommend(app, one, until))
        except (RequestInvalid, UnsupportedWorkload) as wrong:
            failed = failures.invalid(wrong.violations)
            result.error.code = failed.proto.code
            result.error.message = failed.message
            for violation in failures.carried(wrong.violations):
                result.error.fields.add(field=violation.field, description=violation.description)
        size += result.ByteSize()
        if size > MAX_ANSWER_BYTES:
            raise failures.answer_too_large(MAX_ANSWER_BYTES)
    return response


def _in_time(until: float | None) -> None:
    if until is not None and time.monotonic() > until:
        raise failures.deadline()


def _check(
    app: Sizing, request: sizing_service_pb2.CheckFitRequest, until: float | None
) -> Message:
    question = read_check(request, app.catalog, app.remembered.workload)
    made = app.check(question)
    response = sizing_service_pb2.CheckFitResponse(
        verdict=VERDICTS[_verdict(made)],
        pools=pool_messages(_pools(made)),
        reasons=list(app.reasons(question, made)),
        catalog=version_message(app.catalog, None),
        limits=limit_messages(made.limits),
        advice=advice_messages(made.advice, app.today()),
    )
    if made.estimate is not None:
        response.estimate.CopyFrom(estimate_message(made.estimate))
        response.warnings.extend(warning_messages((*made.estimate.notices, *made.notices)))
    return response


def _pools(made: Checked) -> tuple[PoolFit, ...]:
    return () if made.check.choice is None else made.check.choice.pools


def _verdict(made: Checked) -> str:
    pools = _pools(made)
    return worst(tuple(pool.verdict for pool in pools)) if pools else "no"


def _status(app: Sizing, request: Message, until: float | None) -> Message:
    return wire_catalog.status_response(app.catalog, app.published_now(), app.problems)


def _types(
    app: Sizing, request: catalog_service_pb2.ListInstanceTypesRequest, until: float | None
) -> Message:
    return _paged(app, lambda catalog: wire_catalog.list_types(request, catalog))


def _type(
    app: Sizing, request: catalog_service_pb2.GetInstanceTypeRequest, until: float | None
) -> Message:
    try:
        return wire_catalog.get_type(request, app.catalog)
    except KeyError as missing:
        message = str(missing.args[0])
        raise failures.not_found(message, "InstanceType", request.name) from missing


def _offers(
    app: Sizing, request: catalog_service_pb2.ListOffersRequest, until: float | None
) -> Message:
    return _paged(app, lambda catalog: wire_catalog.list_offers(request, catalog, app.today()))


def _paged(app: Sizing, answer: Callable[[Catalog], Message]) -> Message:
    """A page of the version served, or of the one before where the listing began with that."""
    try:
        return answer(app.catalog)
    except TokenOfAnother:
        if app.previous is None:
            raise
        return answer(app.previous)


def _versions(
    app: Sizing, request: catalog_service_pb2.ListCatalogVersionsRequest, until: float | None
) -> Message:
    return wire_versions.list_versions(request, app.published)


def _diff(
    app: Sizing, request: catalog_service_pb2.DiffCatalogRequest, until: float | None
) -> Message:
    try:
        return wire_versions.diff(request, app.published, _home(app))
    except LookupError as missing:
        name = request.before or request.after
        raise failures.not_found(str(missing.args[0]), "CatalogVersion", name) from missing


def _price_changes(
    app: Sizing, request: catalog_service_pb2.ListPriceChangesRequest, until: float | None
) -> Message:
    from sizewright_server.price_history import list_changes

    return list_changes(request, app.catalog, _home(app), app.store_url)


def _home(app: Sizing) -> Home:
    """The home of a catalog that has one."""
    if app.home is None:
        raise failures.fixed_catalog()
    return app.home


def _owned(name: str) -> Callable[[Sizing, Any, float | None], Message]:
    """A call about owned machines, whose module is loaded by the first of them."""

    def answer(app: Sizing, request: Any, until: float | None) -> Message:
        made: Message = getattr(import_module("sizewright_server.owned"), name)(app, request)
        return made

    return answer


def _method(service: str, name: str, module: Any, answer: Any, **more: Any) -> tuple[str, Method]:
    return f"/{service}/{name}", Method(getattr(module, f"{name}Request"), answer, **more)


METHODS: dict[str, Method] = dict(
    [
        _method(SIZING, "Estimate", sizing_service_pb2, _estimate),
        _method(SIZING, "Recommend", sizing_service_pb2, _recommend, takes_long=is_a_study),
        _method(
            SIZING, "BatchRecommend", sizing_service_pb2, _batch, takes_long=lambda request: True
        ),
        _method(SIZING, "CheckFit", sizing_service_pb2, _check, takes_long=is_a_long_check),
        _method(CATALOG, "GetCatalogStatus", catalog_service_pb2, _status),
        _method(CATALOG, "ListInstanceTypes", catalog_service_pb2, _types),
        _method(CATALOG, "GetInstanceType", catalog_service_pb2, _type),
        _method(CATALOG, "ListOffers", catalog_service_pb2, _offers),
        _method(CATALOG, "ListCatalogVersions", catalog_service_pb2, _versions),
        _method(
            CATALOG, "DiffCatalog", catalog_service_pb2, _diff, takes_long=lambda request: True
        ),
        _method(CATALOG, "ListPriceChanges", catalog_service_pb2, _price_changes, in_store=True),
        _method(CATALOG, "ListMachines", catalog_service_pb2, _owned("list_machines")),
        _method(
            CATALOG,
            "RegisterMachine",
            catalog_service_pb2,
            _owned("register_machine"),
            changes_state=True,
            in_store=True,
        ),
        _method(
            CATALOG,
            "DeleteMachine",
            catalog_service_pb2,
            _owned("delete_machine"),
            changes_state=True,
            in_store=True,
        ),
        _method(CATALOG, "ListMachineModels", catalog_service_pb2, _owned("list_models")),
    ]
)
