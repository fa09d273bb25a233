"""Plans, misses and rejections as values with sentences that can be read aloud."""

from __future__ import annotations

from datetime import date

from sizewright_catalog.values import Device, InstanceType, Machine, Offer
from sizewright_server.estimation.memory import Notice
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.networking import network_notices, network_reasons
from sizewright_server.planning.pitfalls import pitfalls
from sizewright_server.planning.plan import (
    Choice,
    Constraints,
    Miss,
    Placement,
    Plan,
    PoolFit,
    Rejection,
    worst,
)
from sizewright_server.planning.situation import Situation
from sizewright_server.planning.spot import spot_notice
from sizewright_server.planning.tight import Tight

GIB = 2**30
#: What a price is that nobody published for this very offer.
KIND_WORDS = {
    "estimate": "an estimate",
    "composed": "added up from components",
    "override": "stated by its buyer",
}
#: Why offers were turned away, of the constraints that need no numbers for it.
WHY = {
    "network-between-nodes": "fit on no single node, and do not say how their nodes reach each "
    "other (allow_unknown_network lets them)",
    "local-disk": "do not state as much local disk as the workload offloads to it",
    "speed-unknown": "have the memory, but no speed is known for their device",
    "budget": "fit, but cost more than the limit",
}
#: What offers have on so many nodes, of the constraints that it is told of.
HAVE = {
    "layout": "no layout of the workload",
    "gpu-memory": "too little GPU memory",
    "host-memory": "too little host memory",
}
#: Plans kept of one search.
MOST_PLANS = 256
#: A pool that is not even half full is not what decides.
HALF_FULL = 0.5
#: Prices older than this get a warning.
OLD_PRICE_DAYS = 180


class Placements:
    """Choices on machines, each put into words once."""

    def __init__(self) -> None:
        self._made: dict[tuple[Choice, str], Placement] = {}
        #: By what they say of the price; each holds its offer, so that the identity stays its own.
        self._plans: dict[tuple[Choice, int, date, float | None], Plan] = {}

    def of(self, choice: Choice, target: InstanceType | Machine) -> Placement:
        """The placement of a choice."""
        made = self._made.get((choice, target.name))
        if made is None:
            made = self._made[choice, target.name] = Placement(
                choice,
                target,
                worst(tuple(pool.verdict for pool in choice.pools)),
                reasons_of(target, choice),
                (*network_notices(target, choice), *pitfalls(Situation.of(target, choice))),
            )
        return made

    def plan(
        self, offer: Offer, choice: Choice, nanos: int, today: date, constraints: Constraints
    ) -> Plan:
        """A plan on a rented machine."""
        limit = constraints.max_price_age_days
        if limit is not None and (today - offer.price.day).days <= limit:
            limit = None  # which is not said of a price that is young enough
        key = (choice, id(offer), today, limit)
        made = self._plans.get(key)
        if made is None:
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            placement, notices = (
                self.of(choice, offer.instance_type),
                price_notices(offer, choice, today, limit),
            )
            made = self._plans[key] = Plan(placement, nanos, offer, notices)
        return made

    def plan_on(self, machine: Machine, choice: Choice) -> Plan:
        """A plan on an owned machine."""
        nanos = choice.nodes * machine.cost_per_hour_nanos_usd
        return Plan(self.of(choice, machine), nanos)


def reasons_of(target: InstanceType | Machine, choice: Choice) -> tuple[str, ...]:
    """Why it fits or does not: each pool's peak against what is usable, and which pool binds."""
    name = _device_words(target.device, target.device_count * choice.nodes)
    gpu, host = choice.pools[0], choice.pools[-1]
    nodes = "the node" if choice.nodes == 1 else f"each of {choice.nodes} nodes"
    binding = max(choice.pools, key=lambda pool: pool.peak.high_bytes / max(pool.usable_bytes, 1))
    on_host = f"Host: {_peak(host)} on {nodes}."
    if gpu.pool == "host":
        return on_host, _binding_words(binding)
    return (
        f"GPU: {_peak(gpu)} on {name}.",
        on_host,
        _binding_words(binding),
        *network_reasons(target, choice.nodes),
    )


def _binding_words(pool: PoolFit) -> str:
    """Whether the fuller pool decides how small the machine may be."""
    words = "GPU memory" if pool.pool == "gpu" else "Host memory"
    share = pool.peak.high_bytes / max(pool.usable_bytes, 1)
    if share < HALF_FULL:
        full = f"{100 * share:.0f} % by the high estimate"
        return f"{words} is the fuller pool and does not bind: {full}."
    return f"{words} binds, at {100 * share:.0f} % by the high estimate."


def miss_of(offer: Offer, choice: Choice, missing_bytes: int) -> Miss:
    """The nearest miss, in words."""
    pool = min(choice.pools, key=lambda p: p.usable_bytes - p.peak.high_bytes)
    what = "per GPU" if pool.pool == "gpu" else "of host memory per node"
    message = (
        f"{offer.instance_type.provider} {offer.instance_type.type} in {offer.region} lacks "
        f"{_size(missing_bytes)} {what}: the high estimate is {_gib(pool.peak.high_bytes)} of "
        f"{_gib(pool.usable_bytes)} usable."
    )
    return Miss(offer, None, choice.nodes, choice.layout, choice.pools, missing_bytes, message)


def stated_layout(workload: AnyWorkload) -> Layout | None:
    """The layout a request states with all its sizes; None where the planner is to find one."""
    layout: Layout | None = getattr(getattr(workload, "run", None), "layout", None)
    return layout if layout is not None and layout.dp else None


def memory_rejection(
    constraint: str, count: int, constraints: Constraints, layout: Layout | None
) -> Rejection:
    """A rejection of offers that met every constraint but this one; `layout` is the stated one."""
    return Rejection(
        constraint, count, f"{count:,} offers {_why(constraint, constraints, layout)}."
    )


def _why(constraint: str, asked: Constraints, layout: Layout | None) -> str:
    plain = WHY.get(constraint)
    if plain is not None:
        return plain
    within = "one node" if asked.max_nodes == 1 else f"up to {asked.max_nodes} nodes"
    if constraint == "gpu-count":
        return _gpu_words(asked, within)
    if constraint == "layout" and layout is not None:
        return f"do not come to the {layout.gpus:,} GPUs of the stated layout on {within}"
    return f"have {HAVE[constraint]} on {within}"


def _gpu_words(asked: Constraints, within: str) -> str:
    most = "" if asked.max_gpus is None else f"have more than {asked.max_gpus:,} GPUs on a node"
    least = f"do not come to {asked.min_gpus:,} GPUs on {within}" if asked.min_gpus else ""
    return " or ".join(words for words in (most, least) if words)


def price_notices(
    offer: Offer, choice: Choice, today: date, max_age_days: float | None = None
) -> tuple[Notice, ...]:
    """What to know of a price before buying; one older than was asked for is flagged."""
    made = []
    age = (today - offer.price.day).days
    if offer.price.kind != "list":
        words, source = KIND_WORDS[offer.price.kind], offer.price.source.removeprefix("composed: ")
        made.append(Notice("price-not-list", f"The price is {words}: {source}."))
    if max_age_days is not None and age > max_age_days:
        words = f"The price is {age} days old, older than the {max_age_days:g} days asked for."
        made.append(Notice("price-stale", words))
    elif age > OLD_PRICE_DAYS:
        made.append(Notice("price-old", f"The price is {age} days old."))
    if offer.term == "spot":
        hours = choice.hours and choice.hours[1]
        made.append(spot_notice(offer.interruption, choice.nodes, hours))
    return tuple(made)


def notices_of(plans: tuple[Plan, ...], tight: Tight | None) -> tuple[Notice, ...]:
    """Notices on the whole answer."""
    if not plans:
        return (Notice("nothing-fits", "No machine fits under these constraints."),)
    first = plans[0]
    if first.verdict == "tight":
        return (
            Notice(
                "only-tight",
                "Nothing fits for certain; the plans listed fit by the best estimate alone.",
            ),
        )
    if tight is not None and tight.cost_per_hour_nanos_usd < first.cost_per_hour_nanos_usd:
        return (tight.notice(),)
    return ()


def _peak(pool: PoolFit) -> str:
    return (
        f"{_gib(pool.peak.best_bytes)} at the peak (at most {_gib(pool.peak.high_bytes)}) "
        f"of {_gib(pool.usable_bytes)} usable"
    )


def _device_words(device: Device | None, count: int) -> str:
    named = device.name if device else "device"
    return f"the {named}" if count == 1 else f"each of {count} {named}"


def _size(size_bytes: int) -> str:
    """A size that is not zero, in the unit that shows it."""
    return _gib(size_bytes) if size_bytes >= GIB // 10 else f"{size_bytes / 2**20:,.1f} MiB"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:,.1f} GiB"
