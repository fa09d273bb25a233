"""How likely it is that spot capacity is taken back from a plan, in words.

Providers say how many of a hundred instances were taken back within a month. Of several nodes none
may be: taken back together the plan is hit as often as one node, each by itself as often as
1 - (1 - p)^n. Within a job of h hours, at a steady rate, it is 1 - (1 - p)^(n h / 730).
"""

from __future__ import annotations

from sizewright_catalog.values import Interruption
from sizewright_server.estimation.memory import Notice

HOURS_OF_A_MONTH = 365.25 * 24 / 12
WHOLE = 100
#: Less than this share, in percent, is said to be that.
LEAST_PERCENT = 0.1
#: And more than this: no band is certain.
MOST_PERCENT = 99
#: From here on no decimals are said.
TWO_DIGITS = 10


def spot_notice(
    taken: Interruption | None, nodes: int = 1, job_hours: float | None = None
) -> Notice:
    """What to know of spot capacity on so many nodes; `job_hours` where they are told."""
    words = "Spot capacity can be taken away while the job runs"
    if taken is None:
        return Notice("spot", f"{words}; nobody says how often it is.")
    low, high = taken.low_percent, taken.high_percent
    ends = high < WHOLE
    share = _band(low, high, ends=ends)
    words = f"{words}: {share} of such instances were within a month ({taken.source})."
    if nodes > 1:
        band = _band(*_over(taken, nodes, 1.0), ends=ends)
        words += (
            f" At least one of {nodes} nodes is taken back within a month in {band} of cases, by "
            "whether they go together or each by itself."
        )
    if job_hours is not None and job_hours < HOURS_OF_A_MONTH:
        band = _band(*_over(taken, nodes, job_hours / HOURS_OF_A_MONTH), ends=ends)
        words += f" Within the {job_hours:,.3g} hours of the job that is {band}."
    return Notice("spot", words)


def _over(taken: Interruption, nodes: int, months: float) -> tuple[float, float]:
    """Percent at least and at most of cases in which a node of several is taken back in a time."""
    low = 1 - (1 - taken.low_percent / WHOLE) ** months
    high = 1 - (1 - taken.high_percent / WHOLE) ** (nodes * months)
    return WHOLE * low, WHOLE * high


def _band(low: float, high: float, *, ends: bool) -> str:
    """A band of percents; without an end where the provider's has none."""
    if not ends:
        return f"more than {_percent(low)} %"
    if high < LEAST_PERCENT:
        return f"less than {LEAST_PERCENT} %"
    if low < LEAST_PERCENT:
        return f"at most {_percent(high)} %"
    return f"{_percent(low)} to {_percent(high)} %"


def _percent(share: float) -> str:
    if share > MOST_PERCENT:
        return f"over {MOST_PERCENT}"
    return f"{share:.2g}" if share < TWO_DIGITS else f"{share:.0f}"
