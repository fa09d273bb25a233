"""The cheapest machine on which a workload fits by the best estimate alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sizewright_catalog.money import dollars
from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.estimation.memory import Notice

#: The codes of notices on a cheaper machine that is not listed.
TIGHT, REPLAYED = "cheaper-tight", "cheaper-when-replayed"
WORDS = {
    TIGHT: "fits by the best estimate, not by the high one; it is not listed.",
    REPLAYED: "fits by a replay of the allocator, as `check` does it; the bound that machines are "
    "searched with leaves it out.",
}


@dataclass(frozen=True, slots=True)
class Tight:
    """So many of a machine, and their cost per hour."""

    target: InstanceType | Machine
    nodes: int
    cost_per_hour_nanos_usd: int

    def notice(self, code: str = TIGHT) -> Notice:
        """What to know of it, where it would cost less than what is listed."""
        target = self.target
        name = target.name
        if isinstance(target, InstanceType):
            name = f"{target.provider} {target.type}"
        return _notice(code, name, self.cost_per_hour_nanos_usd)


@lru_cache(maxsize=1024)  # The same few again and again.
def _notice(code: str, name: str, cost_nanos: int) -> Notice:
    price = f", at {dollars(cost_nanos)} an hour," if cost_nanos else ""
    return Notice(code, f"{name}{price} {WORDS[code]}")
