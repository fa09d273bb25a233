"""What an hour of an owned machine costs, from what it cost to buy and to run.

cost per hour = (price / lifetime + 12 x hosting) / (hours a year x utilization)
              + power x site factor x price of electricity

The first part is paid for every hour of the year and borne by those in which the machine works;
the second for the hours of work alone. What it draws while idle is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

#: Mean length of a year: 365.25 days.
HOURS_PER_YEAR = 8766
MONTHS_PER_YEAR = 12
WATTS_PER_KILOWATT = 1000


@dataclass(frozen=True, slots=True)
class Ownership:
    """What owning one machine costs. Money in nano-dollars; 0 for what costs nothing.

    `power_usage_effectiveness` is the site's power per the machine's; `utilization` the share of
    its hours in which it works.
    """

    purchase_price_nanos_usd: int = 0
    lifetime_years: float = 0.0
    power_watts: float = 0.0
    electricity_per_kwh_nanos_usd: int = 0
    power_usage_effectiveness: float = 1.0
    utilization: float = 1.0
    hosting_per_month_nanos_usd: int = 0


def cost_per_hour_nanos_usd(of: Ownership) -> int:
    """Nano-dollars per hour of work. Raises ValueError for a price without a lifetime."""
    if of.purchase_price_nanos_usd and of.lifetime_years <= 0:
        raise ValueError("a purchase price needs the years it is written off over")
    per_year = Fraction(of.hosting_per_month_nanos_usd * MONTHS_PER_YEAR)
    if of.purchase_price_nanos_usd:
        per_year += Fraction(of.purchase_price_nanos_usd) / Fraction(of.lifetime_years)
    fixed = per_year / (HOURS_PER_YEAR * Fraction(of.utilization))
    kilowatts = Fraction(of.power_watts) * Fraction(of.power_usage_effectiveness)
    running = kilowatts / WATTS_PER_KILOWATT * of.electricity_per_kwh_nanos_usd
    return round(fixed + running)
