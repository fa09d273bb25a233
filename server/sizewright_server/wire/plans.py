"""Planning results as messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from sizewright.v1 import catalog_pb2, plan_pb2, sizing_service_pb2
from sizewright_catalog.catalog import Catalog
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.planning.plan import Advice, Miss, Plan, PlanningResult, PoolFit
from sizewright_server.wire.estimates import (
    POOLS,
    estimate_message,
    layout_message,
    range_message,
    warning_messages,
)
from sizewright_server.wire.machine_messages import machine_message
from sizewright_server.wire.machines import moment, offer_message, timestamp
from sizewright_server.wire.planning import technique_messages

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
) -> sizing_service_pb2.RecommendResponse:
    """The answer; `estimates` belong to the first plans, in order."""
    days = [plan.offer.price.day for plan in result.plans if plan.offer is not None]
    response = sizing_service_pb2.RecommendResponse(
        recommendations=[_plan(i, plan, today) for i, plan in enumerate(result.plans, start=1)],
        rejections=[
            plan_pb2.Rejection(
                constraint=r.constraint, offer_count=r.offer_count, message=r.message
            )
            for r in result.rejections
        ],
        nearest_miss=None if result.nearest_miss is None else _miss(result.nearest_miss, today),
        catalog=version_message(catalog, min(days, default=None)),
        considered_offer_count=result.considered_offer_count,
        fitting_offer_count=result.fitting_offer_count,
        warnings=warning_messages(result.notices),
        pareto_front=[_plan(i, plan, today) for i, plan in enumerate(result.pareto, start=1)],
        advice=advice_messages(result.advice, today),
    )
    for recommendation, estimate in zip(response.recommendations, estimates, strict=False):
        recommendation.estimate.CopyFrom(estimate_message(estimate))
    return response


def version_message(catalog: Catalog, oldest: date | None) -> catalog_pb2.CatalogVersion:
    """The version an answer was made with, and the oldest price it used."""
    return catalog_pb2.CatalogVersion(
        version=catalog.version,
        build_time=moment(catalog.build_time),
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
    return plan_pb2.Advice(
        techniques=technique_messages(one.steps),
        gpu_bytes_saved=one.gpu_bytes_saved,
        host_bytes_saved=one.host_bytes_saved,
        cost_per_hour_saved_nanos_usd=one.cost_per_hour_saved_nanos_usd,
        recommendation=None if one.plan is None else _plan(1, one.plan, today),
        verdict=plan_pb2.VERDICT_UNSPECIFIED if one.verdict is None else VERDICTS[one.verdict],
        message=one.message,
        cost_per_job_saved_nanos_usd=one.cost_per_job_saved_nanos_usd,
        time_factor_low=low,
        time_factor_best=best,
        time_factor_high=high,
        work_cost_factor=one.work_cost_factor or 0.0,
        details=one.details,
    )


def _plan(rank: int, plan: Plan, today: date) -> plan_pb2.Recommendation:
    return plan_pb2.Recommendation(
        rank=rank,
        offer=None if plan.offer is None else offer_message(plan.offer, today),
        machine=None if plan.machine is None else machine_message(plan.machine),
        node_count=plan.node_count,
        layout=layout_message(plan.layout),
        verdict=VERDICTS[plan.verdict],
        pools=pool_messages(plan.pools),
        cost_per_hour_nanos_usd=plan.cost_per_hour_nanos_usd,
        reasons=plan.reasons,
        warnings=warning_messages(plan.notices),
        techniques=technique_messages(plan.variant.steps),
        job_hours=None if plan.job_hours is None else _hours(plan.job_hours),
        cost_per_job_nanos_usd=plan.cost_per_job_nanos_usd,
        free_share=plan.free_share,
    )


def _hours(hours: tuple[float, float, float]) -> plan_pb2.HoursRange:
    low, best, high = hours
    return plan_pb2.HoursRange(low_hours=low, best_hours=best, high_hours=high)


def _miss(miss: Miss, today: date) -> plan_pb2.NearestMiss:
    return plan_pb2.NearestMiss(
        offer=None if miss.offer is None else offer_message(miss.offer, today),
        machine=None if miss.machine is None else machine_message(miss.machine),
        node_count=miss.node_count,
        layout=layout_message(miss.layout),
        pools=pool_messages(miss.pools),
        missing_bytes=miss.missing_bytes,
        message=miss.message,
    )
