"""What plans are ranked by, as a number that is better when smaller, and in words."""

from __future__ import annotations

import math

from sizewright_server.planning.plan import Objective, Plan
from sizewright_server.planning.words import dollars


def value_of(objective: Objective, plan: Plan) -> float:
    """Nano-dollars per hour, nano-dollars of the whole job, or its hours by the best estimate."""
    if objective == "cost-per-hour":
        return plan.cost_per_hour_nanos_usd
    if plan.job_hours is None:
        return math.inf
    return plan.cost_per_job_nanos_usd if objective == "cost-per-job" else plan.job_hours[1]


def in_words(objective: Objective, value: float) -> str:
    """A value, or the difference of two, as people say it."""
    if objective == "time":
        return f"{value:,.1f} hours" if value >= 1 else f"{60 * value:,.0f} minutes"
    unit = "an hour" if objective == "cost-per-hour" else "for the job"
    return f"{dollars(int(value))} {unit}"
