"""What plans are ranked by, as a number that is better when smaller, and in words."""

from __future__ import annotations

import math

from sizewright_catalog.money import dollars
from sizewright_server.planning.plan import Objective, Plan


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
        minutes = 60 * value
        if minutes < 2:
            return f"{60 * minutes:.0f} seconds"
        return f"{minutes:.0f} minutes" if value < 2 else f"{value:,.1f} hours"
    unit = "an hour" if objective == "cost-per-hour" else "for the job"
    return f"{dollars(int(value))} {unit}"
