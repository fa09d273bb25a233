"""Planning results as messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import lru_cache

from sizewright.v1 import catalog_pb2, plan_pb2, sizing_service_pb2
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.values import Machine, Offer
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.planning.plan import (
    Advice,
    Miss,
    Placement,
    Plan,
    PlanningResult,
    PoolFit,
    Rejection,
)
from sizewright_server.wire.estimates import (
    POOLS,
    estimate_message,
    layout_message,
    range_message,
    warning_messages,
)
from sizewright_server.wire.fragments import Fragments, embedded, head, serialized
from sizewright_server.wire.machine_messages import machine_message
from sizewright_server.wire.machines import moment, offer_message, timestamp
from sizewright_server.wire.planning import technique_messages

Response = sizing_service_pb2.RecommendResponse

VERDICTS = {
    "fits": plan_pb2.VERDICT_FITS,
    "tight": plan_pb2.VERDICT_TIGHT,
    "no": plan_pb2.VERDICT_NO,
}


def recommend_response(
    result: PlanningResult,
    estimates: Sequence[MemoryEstimate],
    catalog: Catalog,
    today: date,
) -> bytes:
    """The answer, serialised; `estimates` belong to the first plans, in order."""
    days = [plan.offer.price.day for plan in result.plans if plan.offer is not None]
    miss = result.nearest_miss
    told = Response(
        considered_offer_count=result.considered_offer_count,
        fitting_offer_count=result.fitting_offer_count,
        warnings=warning_messages(result.notices),
        advice=advice_messages(result.advice, today),
        pareto_front_count=result.pareto_count,
    )
    return b"".join(
        (
            *_plans(Response.RECOMMENDATIONS_FIELD_NUMBER, result.plans, estimates, today),
            *map(_rejection, result.rejections),
            b"" if miss is None else _misses(today).of(miss),
            *_plans(Response.PARETO_FRONT_FIELD_NUMBER, result.pareto, (), today),
            _version(catalog.version, catalog.build_time, min(days, default=None)),
            serialized(told),
        )
    )


def _plans(
    field_number: int, plans: Sequence[Plan], estimates: Sequence[MemoryEstimate], today: date
) -> list[bytes]:
    """Plans in pieces, which are joined once, with the whole answer."""
    of, estimate_field = _pieces(today).of, plan_pb2.Recommendation.ESTIMATE_FIELD_NUMBER
    made: list[bytes] = []
    for rank, plan in enumerate(plans, start=1):
        told = [_rank(rank), of(plan)]
        if rank <= len(estimates):
            estimate = _ESTIMATES.of(estimates[rank - 1])
            told += (head(estimate_field, len(estimate)), estimate)
        made.append(head(field_number, sum(map(len, told))))
        made += told
    return made


@lru_cache(maxsize=64)
def _version(version: str, build_time: float, oldest: date | None) -> bytes:
    """The version as a field of the answer."""
    message = _version_message(version, build_time, oldest)
    return embedded(Response.CATALOG_FIELD_NUMBER, serialized(message))


@lru_cache(maxsize=1024)
def _rejection(rejection: Rejection) -> bytes:
    """A rejection as a field of the answer."""
    message = plan_pb2.Rejection(
        constraint=rejection.constraint,
        offer_count=rejection.offer_count,
        message=rejection.message,
    )
    return embedded(Response.REJECTIONS_FIELD_NUMBER, serialized(message))


def version_message(catalog: Catalog, oldest: date | None) -> catalog_pb2.CatalogVersion:
    """The version an answer was made with, and the oldest price it used."""
    return _version_message(catalog.version, catalog.build_time, oldest)


def _version_message(
    version: str, build_time: float, oldest: date | None
) -> catalog_pb2.CatalogVersion:
    return catalog_pb2.CatalogVersion(
        version=version,
        build_time=moment(build_time),
        oldest_price_time=None if oldest is None else timestamp(oldest),
    )


def pool_messages(pools: Sequence[PoolFit]) -> list[plan_pb2.PoolFit]:
    """Each pool against its capacity."""
    return [
        plan_pb2.PoolFit(
            pool=POOLS[pool.pool],
            peak=range_message(pool.peak),
            usable_bytes=pool.usable_bytes,
            verdict=VERDICTS[pool.verdict],
        )
        for pool in pools
    ]


def advice_messages(advice: Sequence[Advice], today: date) -> list[plan_pb2.Advice]:
    """Advice with the plan or the verdict it leads to."""
    return [_advice(one, today) for one in advice]


def _advice(one: Advice, today: date) -> plan_pb2.Advice:
    low, best, high = one.time_factor or (0.0, 0.0, 0.0)
    plan = b"" if one.plan is None else _rank(1) + _pieces(today).of(one.plan)
    return plan_pb2.Advice(
        techniques=technique_messages(one.steps),
        gpu_bytes_saved=one.gpu_bytes_saved,
        host_bytes_saved=one.host_bytes_saved,
        cost_per_hour_saved_nanos_usd=one.cost_per_hour_saved_nanos_usd,
        recommendation=plan_pb2.Recommendation.FromString(plan) if plan else None,
        verdict=plan_pb2.VERDICT_UNSPECIFIED if one.verdict is None else VERDICTS[one.verdict],
        message=one.message,
        cost_per_job_saved_nanos_usd=one.cost_per_job_saved_nanos_usd,
        time_factor_low=low,
        time_factor_best=best,
        time_factor_high=high,
        work_cost_factor=one.work_cost_factor or 0.0,
        details=one.details,
    )


@lru_cache(maxsize=512)
def _rank(rank: int) -> bytes:
    return serialized(plan_pb2.Recommendation(rank=rank))


@lru_cache(maxsize=2)
def _offers(today: date) -> Fragments[Offer]:
    """Offers with the age their prices have on a day."""
    return Fragments(lambda offer: serialized(offer_message(offer, today)), most=8192)


@lru_cache(maxsize=2)
def _pieces(today: date) -> Fragments[Plan]:
    """Plans without their ranks: what the price says, what is rented, how the work lies on it."""

    def piece(plan: Plan) -> bytes:
        price = plan_pb2.Recommendation(
            cost_per_hour_nanos_usd=plan.cost_per_hour_nanos_usd,
            cost_per_job_nanos_usd=plan.cost_per_job_nanos_usd,
            warnings=warning_messages(plan.price_notices),
        )
        offer = b""
        if plan.offer is not None:
            rented = _offers(today).of(plan.offer)
            offer = embedded(plan_pb2.Recommendation.OFFER_FIELD_NUMBER, rented)
        return serialized(price) + offer + _PLACEMENTS.of(plan.placement)

    return Fragments(piece, most=4096)


def _placement(placement: Placement) -> bytes:
    choice, target, hours = placement.choice, placement.target, placement.job_hours
    message = plan_pb2.Recommendation(
        machine=machine_message(target) if isinstance(target, Machine) else None,
        node_count=choice.nodes,
        layout=layout_message(choice.layout),
        verdict=VERDICTS[placement.verdict],
        pools=pool_messages(choice.pools),
        reasons=placement.reasons,
        warnings=warning_messages(placement.notices),
        techniques=technique_messages(choice.variant.steps),
        job_hours=None if hours is None else _hours(hours),
        free_share=placement.free_share,
    )
    return serialized(message)


_PLACEMENTS = Fragments(_placement, most=8192)
#: The largest pieces: tens of KiB each.
_ESTIMATES: Fragments[MemoryEstimate] = Fragments(
    lambda estimate: serialized(estimate_message(estimate)), most=512
)


def _hours(hours: tuple[float, float, float]) -> plan_pb2.HoursRange:
    low, best, high = hours
    return plan_pb2.HoursRange(low_hours=low, best_hours=best, high_hours=high)


@lru_cache(maxsize=2)
def _misses(today: date) -> Fragments[Miss]:
    """Nearest misses as fields of an answer on a day."""
    return Fragments(lambda miss: _miss(miss, today), most=1024)


def _miss(miss: Miss, today: date) -> bytes:
    """The nearest miss as a field of the answer."""
    message = plan_pb2.NearestMiss(
        machine=None if miss.machine is None else machine_message(miss.machine),
        node_count=miss.node_count,
        layout=layout_message(miss.layout),
        pools=pool_messages(miss.pools),
        missing_bytes=miss.missing_bytes,
        message=miss.message,
    )
    offer = b""
    if miss.offer is not None:
        offer = embedded(plan_pb2.NearestMiss.OFFER_FIELD_NUMBER, _offers(today).of(miss.offer))
    return embedded(Response.NEAREST_MISS_FIELD_NUMBER, serialized(message), offer)
