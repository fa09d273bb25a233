"""The refresh of AWS: one scope a region, each asked for types, zones, prices and spot prices."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any

from sizewright_catalog.providers.aws.interruptions import Bands, interruptions
from sizewright_catalog.providers.aws.placement import placement_scores
from sizewright_catalog.providers.aws.prices import (
    LINUX,
    PLAIN,
    PLANS,
    PriceLine,
    plan_line,
    price_lines,
)
from sizewright_catalog.providers.aws.source import (
    HOME_REGION,
    answered,
    client,
    listed,
    only,
    pages,
    session,
)
from sizewright_catalog.providers.aws.spot import SpotHistory, SpotPrice
from sizewright_catalog.providers.aws.types import PROVIDER, type_row
from sizewright_catalog.providers.contract import FetchContext, Garbage, Page, Refused, Schedule
from sizewright_catalog.rows import OfferRow

#: Offers on a page that is made here.
PAGE_ROWS = 2000
#: The price list gives at most this many items at once.
PRICE_PAGE = 100
DEFAULT_SPOT_HOURS = 24
RATES = "DescribeSavingsPlansOfferingRates"


class Aws:
    """AWS through boto3.

    Settings: `profile`; `home_region` (which serves the price list); `regions` (comma-separated;
    all that are enabled by default);
    `instance_types` (patterns such as `p5*,g6.*`; all by default); `spot_history_hours`;
    `placement_scores` (types, as AWS answers few such questions a day; none by default);
    `spot_advisor_url` (where the bands of interruption are; `none` asks nowhere); `endpoint_url`,
    and `{service}_endpoint_url` for one service.
    """

    name = PROVIDER
    schedule = Schedule(every_seconds=6 * 3600)

    def __init__(self) -> None:
        self._session: Any = None
        # Sessions are not thread-safe, the clients they make are.
        self._lock = threading.Lock()
        self._bands: Bands | None = None

    def scopes(self, context: FetchContext) -> Sequence[str]:
        """The regions this account can use, or those of the settings that it can."""
        ec2 = self._client("ec2", _home(context), context)
        found = answered("DescribeRegions", ec2.describe_regions)["Regions"]
        enabled = sorted(region["RegionName"] for region in found)
        wanted = listed(context, "regions")
        missing = sorted(set(wanted) - set(enabled))
        if missing:
            raise Refused(f"regions not enabled for this account: {', '.join(missing)}")
        return wanted or enabled

    def fetch(self, scope: str, context: FetchContext) -> Iterator[Page]:
        """The types and offers of a region."""
        ec2 = self._client("ec2", scope, context)
        zones = _zones(ec2, scope, context)
        classes: dict[str, Sequence[str]] = {}
        for page in pages(ec2, "describe_instance_types", context, **only(context)):
            types = []
            for item in page["InstanceTypes"]:
                row = type_row(item)
                if row is None:
                    context.drop("aws: runs no Linux")
                elif row.type not in zones:
                    context.drop("aws: in no zone of the region")
                else:
                    types.append(row)
                    classes[row.type] = item["SupportedUsageClasses"]
            yield Page(types=types)
        offers = _Offers(scope, zones, classes, self._interruptions(context), context)
        yield from offers.of_list(self._client("pricing", _home(context), context))
        yield from offers.of_plans(self._client("savingsplans", _home(context), context))
        yield from offers.of_spot(ec2)

    def _interruptions(self, context: FetchContext) -> Bands:
        """The bands of all regions, asked for once by whichever comes first."""
        with self._lock:
            if self._bands is None:
                self._bands = interruptions(context)
            return self._bands

    def _client(self, service: str, region: str, context: FetchContext) -> Any:
        with self._lock:
            if self._session is None:
                self._session = session(context.settings)
            return client(self._session, service, region, context)


def _zones(ec2: Any, region: str, context: FetchContext) -> dict[str, str]:
    """Type to the region's own zones it is offered in; Local and Wavelength Zones are others."""
    found: dict[str, list[str]] = {}
    asked = {"LocationType": "availability-zone", **only(context)}
    for page in pages(ec2, "describe_instance_type_offerings", context, **asked):
        for offering in page["InstanceTypeOfferings"]:
            zone = offering["Location"]
            if zone[:-1] == region:
                found.setdefault(offering["InstanceType"], []).append(zone)
    return {name: " ".join(sorted(zones)) for name, zones in found.items()}


def _home(context: FetchContext) -> str:
    return context.settings.get("home_region") or HOME_REGION


def _lines(items: Sequence[str]) -> list[PriceLine]:
    return [line for item in items for line in price_lines(item)]


def _plan_lines(rates: Sequence[Mapping[str, Any]]) -> list[PriceLine]:
    return [line for rate in rates if (line := plan_line(rate)) is not None]


class _Offers:
    """The offers of one region, source by source."""

    def __init__(
        self,
        region: str,
        zones: Mapping[str, str],
        classes: Mapping[str, Sequence[str]],
        bands: Bands,
        context: FetchContext,
    ) -> None:
        self._region = region
        self._zones = zones
        self._classes = classes
        self._bands = bands
        self._context = context
        self._now = context.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def of_list(self, pricing: Any) -> Iterator[Page]:
        """On-demand and reserved prices."""
        fixed = {**PLAIN, "regionCode": self._region}
        filters = [
            {"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in fixed.items()
        ]
        asked = {
            "ServiceCode": "AmazonEC2",
            "Filters": filters,
            "FormatVersion": "aws_v1",
            "PaginationConfig": {"PageSize": PRICE_PAGE},
        }
        for page in pages(pricing, "get_products", self._context, **asked):
            lines = answered("GetProducts", partial(_lines, page["PriceList"]))
            yield Page(offers=[*self._sold(lines, "AWS price list")])

    def of_plans(self, savings: Any) -> Iterator[Page]:
        """Savings plans. Without the permission the other prices still stand."""
        asked: dict[str, Any] = {
            "savingsPlanPaymentOptions": ["No Upfront"],
            "savingsPlanTypes": list(PLANS),
            "products": ["EC2"],
            "serviceCodes": ["AmazonEC2"],
            "filters": [
                {"name": "region", "values": [self._region]},
                {"name": "tenancy", "values": ["shared"]},
                {"name": "productDescription", "values": [LINUX]},
            ],
            "maxResults": 1000,
        }
        operation = savings.describe_savings_plans_offering_rates
        while True:
            self._context.check()
            try:
                page = answered(RATES, lambda: operation(**asked))
            except Refused as refused:
                self._context.drop(f"aws: no savings plans: {refused}")
                return
            lines = answered(RATES, partial(_plan_lines, page["searchResults"]))
            yield Page(offers=[*self._sold(lines, "AWS savings plan rates")])
            if not page.get("nextToken"):
                return
            if page["nextToken"] == asked.get("nextToken"):
                raise Garbage(f"{RATES}: the pages go in a circle")
            asked["nextToken"] = page["nextToken"]

    def of_spot(self, ec2: Any) -> Iterator[Page]:
        """Spot prices by zone, with the lowest and the median of the hours before."""
        hours = float(self._context.settings.get("spot_history_hours") or DEFAULT_SPOT_HOURS)
        history = SpotHistory()
        asked = {
            "ProductDescriptions": [LINUX],
            "StartTime": self._context.now() - timedelta(hours=hours),
            **only(self._context),
        }
        try:
            for page in pages(ec2, "describe_spot_price_history", self._context, **asked):
                history.add(page["SpotPriceHistory"])
        except Refused as refused:
            self._context.drop(f"aws: no spot prices: {refused}")
            return
        scores = placement_scores(ec2, self._region, self._classes, self._context)
        kept = (
            price
            for price in history.prices()
            if price.zone in self._zones.get(price.type, "").split()
            and "spot" in self._classes.get(price.type, ())
            and price.latest_nanos > 0
        )
        while some := [self._spot_offer(price, scores) for price in islice(kept, PAGE_ROWS)]:
            yield Page(offers=some)

    def _spot_offer(self, price: SpotPrice, scores: Mapping[tuple[str, str], int]) -> OfferRow:
        return OfferRow(
            provider=PROVIDER,
            type=price.type,
            region=self._region,
            zones=price.zone,
            term="spot",
            per_hour_nanos=price.latest_nanos,
            currency="USD",
            kind="list",
            day=price.since,
            source="EC2 spot price history",
            zone=price.zone,
            spot_low_nanos=price.lowest_nanos,
            spot_median_nanos=price.median_nanos,
            placement_score=scores.get((price.type, price.zone), 0),
            interruption=self._bands.get((self._region, price.type)),
        )

    def _sold(self, lines: Sequence[PriceLine], source: str) -> Iterator[OfferRow]:
        """The offers of prices whose type is offered here on that term."""
        for line in lines:
            if line.type not in self._classes:
                self._context.drop("aws: priced and not offered in the region")
            elif "on-demand" not in self._classes[line.type]:
                self._context.drop("aws: capacity blocks only")
            else:
                yield OfferRow(
                    provider=PROVIDER,
                    type=line.type,
                    region=self._region,
                    zones=self._zones[line.type],
                    term=line.term,
                    per_hour_nanos=line.per_hour_nanos,
                    currency=line.currency,
                    kind=line.kind,
                    day=self._now,
                    source=source,
                    commitment=line.commitment,
                )
