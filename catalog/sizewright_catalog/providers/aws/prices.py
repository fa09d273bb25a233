"""From items of the price list and of savings-plan rates to offers' prices.

A reserved instance or a savings plan is a price per hour plus, for some, a fee ahead; both together
over the hours of the term are its cost per hour, as AWS itself states effective rates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sizewright_catalog.values import NANOS, PriceKind, Term

#: Hours of a year, as AWS counts them for effective rates.
HOURS_PER_YEAR = 8760
SECONDS_PER_YEAR = HOURS_PER_YEAR * 3600
LINUX = "Linux/UNIX"
#: What makes a price that of a plain Linux machine on shared hardware. Without them Dedicated
#: hosts come at 0 and bare metal at the dedicated price.
PLAIN = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "capacitystatus": "Used",
    "preInstalledSw": "NA",
    "operation": "RunInstances",
}
#: Upfront options that are kept: both ends, as the middle one lies between them.
PAYMENTS = {"No Upfront": "no-upfront", "All Upfront": "all-upfront"}
LENGTHS = {"1yr": 1, "3yr": 3}
PLANS = {"Compute": "compute-savings-plan", "EC2Instance": "ec2-savings-plan"}


@dataclass(frozen=True, slots=True)
class PriceLine:
    """A price per hour of an instance type. `commitment` is empty on demand."""

    type: str
    term: Term
    commitment: str
    per_hour_nanos: int
    currency: str
    kind: PriceKind


def price_lines(text: str) -> Iterator[PriceLine]:
    """The prices of one item of the price list, which is JSON in a string.

    Nothing for one that is not a plain Linux machine or costs nothing. Raises ValueError or
    KeyError for garbage.
    """
    item = json.loads(text)
    facts = item["product"]["attributes"]
    if any(facts.get(name) != value for name, value in PLAIN.items()):
        return
    name = facts["instanceType"]
    for term in item["terms"].get("OnDemand", {}).values():
        yield from _line(name, term, "on-demand", "", 0)
    for term in item["terms"].get("Reserved", {}).values():
        about = term["termAttributes"]
        years = LENGTHS.get(about["LeaseContractLength"])
        paid = PAYMENTS.get(about["PurchaseOption"])
        if years and paid and about["OfferingClass"] == "standard":
            yield from _line(name, term, "committed", f"reserved-{years}y-{paid}", years)


def _line(
    name: str, term: Mapping[str, Any], kind: Term, commitment: str, years: int
) -> Iterator[PriceLine]:
    """The cost per hour of one term: its hourly rate and its fee spread over the years."""
    hourly, ahead, currency = Decimal(0), Decimal(0), ""
    for dimension in term["priceDimensions"].values():
        ((currency, amount),) = dimension["pricePerUnit"].items()
        if dimension["unit"] == "Hrs":
            hourly += Decimal(amount)
        elif dimension["unit"] == "Quantity" and years:
            ahead += Decimal(amount)
        else:
            raise ValueError(f"{name}: a price per {dimension['unit']!r}")
    total = hourly + (ahead / (HOURS_PER_YEAR * years) if ahead else 0)
    value = int((total * NANOS).to_integral_value())
    if value > 0:
        yield PriceLine(name, kind, commitment, value, currency, "composed" if ahead else "list")


def plan_line(rate: Mapping[str, Any]) -> PriceLine | None:
    """The price of one savings-plan rate; None for one that is not kept.

    Raises ValueError or KeyError for garbage.
    """
    about = {entry["name"]: entry["value"] for entry in rate["properties"]}
    offering = rate["savingsPlanOffering"]
    plan = PLANS.get(offering["planType"])
    years, rest = divmod(int(offering["durationSeconds"]), SECONDS_PER_YEAR)
    plain = about.get("tenancy", "").lower() == "shared"
    plain = plain and about.get("productDescription") == LINUX and rate["unit"] == "Hrs"
    if plan is None or rest or not plain or offering["paymentOption"] != "No Upfront":
        return None
    # Rates of unused reservations carry the type too; the plain box is what is wanted.
    if "BoxUsage" not in rate["usageType"] or rate["operation"] != "RunInstances":
        return None
    value = int((Decimal(rate["rate"]) * NANOS).to_integral_value())
    if value <= 0:
        return None
    commitment = f"{plan}-{years}y-no-upfront"
    name = about["instanceType"]
    return PriceLine(name, "committed", commitment, value, offering["currency"], "list")
