"""From SKUs of the billing catalog to prices of components: a vCPU, a GiB, a GPU, a GiB of SSD.

A SKU says what it prices in its description alone ("N2 Instance Core running in Americas",
"Commitment v1: N2 Cpu in Iowa for 1 Year", "Nvidia L4 GPU attached to Spot Preemptible VMs running
in Delhi"), so the descriptions are read here, and what is not understood is not priced. Sole
tenancy, custom and extended shapes, reservations in calendar mode and flex-start ("DWS") have
descriptions of their own and fall through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sizewright_catalog.providers.gcp.knowledge import knowledge
from sizewright_catalog.values import NANOS

ON_DEMAND, SPOT = "on-demand", "spot"
COMMITTED = {"1": "commitment-1y", "3": "commitment-3y"}
SPOT_PREFIX = re.compile(r"^(Spot )?Preemptible ")
SPOT_SUFFIX = re.compile(r" attached to (Spot )?Preemptible VMs?")
COMMITMENT = re.compile(r"^Commitment(?: v\d)?: (?P<what>.+?) for (?P<years>[13]) Years?$")
PLACE = re.compile(r"(?: running)?(?: [iI]n [A-Z].*)?$")
#: "N2", "N2D AMD", "T2A Arm", "M3 Memory-optimized", "N1 Predefined" and the nameless families.
FAMILY = re.compile(
    r"^(?:(?P<letters>[A-Z]\d+[A-Za-z]*)(?: AMD| Arm| Memory-optimized| Predefined)*"
    r"|(?P<words>Compute optimized|Memory-optimized))$"
)
RESOURCE = re.compile(r"^(?P<family>.*?)(?: Instance)? (?P<kind>Core|Ram|Local SSD)$")
COMMITTED_RESOURCE = re.compile(r"^(?P<family>.*?) ?(?P<kind>Cpu|Ram|Local SSD)$")
KINDS = {"Core": "vcpu", "Cpu": "vcpu", "Ram": "memory", "Local SSD": "ssd"}
ANY_SSD = "SSD backed Local Storage"
#: Family of what belongs to none: GPUs, and SSDs that are priced for all.
SHARED = ""


@dataclass(frozen=True, slots=True)
class Component:
    """What a SKU prices: `kind` vcpu, memory, ssd or a GPU's type, of a family, on a term."""

    family: str
    kind: str
    term: str


def component(description: str) -> Component | None:
    """What a description stands for; None when it prices nothing that machines are made of."""
    committed = COMMITMENT.match(description)
    if committed:
        return _component(committed["what"], COMMITTED[committed["years"]], COMMITTED_RESOURCE)
    plain = SPOT_SUFFIX.sub("", SPOT_PREFIX.sub("", description))
    return _component(plain, SPOT if plain != description else ON_DEMAND, RESOURCE)


def _component(words: str, term: str, pattern: re.Pattern[str]) -> Component | None:
    what = PLACE.sub("", words, count=1)
    if what in knowledge().gpu_skus:
        return Component(SHARED, knowledge().gpu_skus[what], term)
    if what == ANY_SSD:
        return Component(SHARED, "ssd", term)
    found = pattern.match(what)
    if found is None:
        return None
    kind = KINDS[found["kind"]]
    if kind == "ssd" and not found["family"]:
        # "Commitment v1: Local SSD in Iowa" is for all families, as the plain SKU is.
        return Component(SHARED, "ssd", term)
    family = _family(found["family"], committed=pattern is COMMITTED_RESOURCE)
    return None if family is None else Component(family, kind, term)


def _family(words: str, *, committed: bool) -> str | None:
    named = FAMILY.match(words)
    if named and named["letters"]:
        return named["letters"].lower()
    if named:
        return knowledge().family_words[named["words"].lower()]
    # N1 alone is committed to without a name.
    return knowledge().family_words[""] if committed and words == "" else None


class ComponentPrices:
    """Nano-dollars per hour by component and region."""

    def __init__(self) -> None:
        self._prices: dict[tuple[Component, str], tuple[int, int]] = {}
        self.unreadable = 0

    def add(self, sku: Any) -> None:
        """Takes a SKU message. One that prices no component, or not in dollars, is passed over.

        A SKU of a few regions beats one that covers many: what is said of a place itself holds.
        """
        what = component(sku.description)
        if what is None or not sku.pricing_info:
            return
        value = self._hourly(sku.pricing_info[-1].pricing_expression, what.kind)
        if value is None:
            self.unreadable += 1
            return
        breadth = len(sku.service_regions)
        for region in sku.service_regions:
            held = self._prices.get((what, region))
            # Of two as narrow the dearer holds: a price is never promised too low.
            if held is None or (breadth, -value) < (held[0], -held[1]):
                self._prices[what, region] = (breadth, value)

    def __len__(self) -> int:
        return len(self._prices)

    def get(self, family: str, kind: str, term: str, region: str) -> int | None:
        """The price, or None where there is none."""
        held = self._prices.get((Component(family, kind, term), region))
        return None if held is None else held[1]

    def ssd(self, family: str, term: str, region: str) -> int | None:
        """The price of a GiB of local SSD: the family's own, else that for all.

        Without a price on the term it is billed as on demand.
        """
        for owner, on in ((family, term), (SHARED, term), (family, ON_DEMAND), (SHARED, ON_DEMAND)):
            found = self.get(owner, "ssd", on, region)
            if found is not None:
                return found
        return None

    @staticmethod
    def _hourly(expression: Any, kind: str) -> int | None:
        """Nano-dollars per unit and hour; None for another currency, unit, or a free tier alone."""
        if not expression.tiered_rates:
            return None
        price = expression.tiered_rates[-1].unit_price
        if price.currency_code != "USD":
            return None
        value = int(price.units) * NANOS + int(price.nanos)
        gib = "GiBy" if kind in ("memory", "ssd") else ""
        per = expression.usage_unit.removeprefix(f"{gib}." if gib else "")
        if per == "h":
            return value
        if per == "mo":
            return round(value / knowledge().hours_per_month.value)
        return None
