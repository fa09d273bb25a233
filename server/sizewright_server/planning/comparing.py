"""Two ways to run a workload compared: bytes under one layout, and time and dollars of the work."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from sizewright_server.estimation.estimator import PreparedWorkload
from sizewright_server.estimation.workload import Layout, Training
from sizewright_server.planning.conditions import conditions_of
from sizewright_server.planning.hours import NEVER
from sizewright_server.planning.kinds import NodeKind, node_kind
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.plan import Advice, Plan
from sizewright_server.planning.processors import cpu_hours, launch_hours
from sizewright_server.planning.techniques import Applied
from sizewright_server.planning.throughput import speed_of
from sizewright_server.planning.variants import Variant

#: Less than this is no saving.
LEAST_BYTES = 2**26
CPU_ONLY = "cpu-only"
#: A CPU is worth many times the time where the work costs half, and little more where it does not.
MUCH_CHEAPER, NEARLY_AS_FAST = 0.5, 2.0
#: Threads of the CPU that boosting on a GPU was compared with.
THREADS = 8
Span = tuple[float, float, float]


def saved_bytes(old: Prepared, new: Prepared, layout: Layout, ranks: int) -> tuple[int, int]:
    """What a change takes off the best estimates of a GPU and of a node under one layout."""
    sizes = []
    for prepared in (old, new):
        columns = prepared.columns((own_layout(prepared, layout),))
        host = columns.host_node_best_bytes[0] + ranks * columns.host_rank_best_bytes[0]
        sizes.append((int(columns.gpu_reserved_best_bytes[0]), int(host)))
    return sizes[0][0] - sizes[1][0], sizes[0][1] - sizes[1][1]


def saved_between(before: Plan, after: Plan, changed: Prepared) -> tuple[int, int]:
    """Bytes off a GPU and a node under the layout of the plan before; where that saves nothing, as
    of an optimizer that is sharded anyway, under the layout the change is run with."""
    old = before.variant.prepared
    saved = saved_bytes(old, changed, before.layout, ranks_of(before))
    if max(saved) >= LEAST_BYTES:
        return saved
    return saved_bytes(old, changed, after.layout, ranks_of(after))


def own_layout(prepared: Prepared, layout: Layout) -> Layout:
    """The layout as the workload takes it: its own explicit one, or with what it offloads."""
    run = getattr(prepared.workload, "run", None)
    if not isinstance(run, Training):
        return layout
    if run.layout is not None:
        dp = run.layout.dp or layout.dp
        return replace(run.layout, dp=dp)
    if run.offload in ("none", layout.offload):
        return layout
    needed = 2 if run.offload == "optimizer" else 3
    zero = max(layout.zero, needed)
    return replace(layout, zero=zero, sharding="deepspeed", offload=run.offload)


def ranks_of(plan: Plan) -> int:
    """Ranks on a node of a plan."""
    return max(plan.placement.target.device_count, 1)


def time_factor(before: Plan, after: Plan, steps: tuple[Applied, ...]) -> Span | None:
    """Time of the same work on another plan, which takes `steps` more; None where not modelled."""
    if before.job_hours is not None and after.job_hours is not None:
        return _ratio(before.job_hours, after.job_hours)
    if any(step.name == CPU_ONLY for step in steps):
        return _on_cpu(before, after, steps)
    old = _hours(before, before.variant)
    new = _hours(after, Variant(after.variant.prepared, (*steps, *after.variant.steps)))
    return None if old is None or new is None else _ratio(old, new)


def _on_cpu(before: Plan, after: Plan, steps: tuple[Applied, ...]) -> Span | None:
    """The CPU's time over the GPU's, which is never below its launches; of boosting, whose
    operations nobody counts, the technique's figure, which is for eight threads."""
    prepared = before.variant.prepared
    if not isinstance(prepared, PreparedWorkload):
        cores = THREADS / max(after.placement.target.vcpus, 1)
        low, best, high = (cores * prod(s.figures.time[at] for s in steps) for at in range(3))
        return low, best, high
    old = _hours(before, before.variant)
    if old is None:
        return None
    floor = launch_hours(prepared) / before.layout.dp
    slow, likely, fast = (max(one, floor) for one in old)
    new = cpu_hours(prepared, after.placement.target.vcpus)
    return _ratio((slow, likely, fast), new)


def work_cost_factor(before: Plan, after: Plan, factor: Span | None) -> float | None:
    """Dollars of the same work on another plan, relative; None where no speed is known."""
    if factor is None or before.cost_per_hour_nanos_usd <= 0:
        return None
    return factor[1] * after.cost_per_hour_nanos_usd / before.cost_per_hour_nanos_usd


def _ratio(old: Span, new: Span) -> Span:
    """Low, best and high of a ratio whose terms err alike: the wider end bounds each side."""
    best = new[1] / old[1]
    ends = (new[0] / old[0], best, new[2] / old[2])
    return min(ends), best, max(ends)


def _hours(plan: Plan, variant: Variant) -> Span | None:
    kind, speed = _node(plan), speed_of(variant)
    if speed is None or kind is None:
        return None
    found = speed.of(plan.layout, kind)
    return None if NEVER in found or min(found) <= 0 else found


def _node(plan: Plan) -> NodeKind | None:
    workload = plan.variant.prepared.workload
    kind = node_kind(plan.placement.target, conditions_of(workload))
    return None if isinstance(kind, str) else kind


def gpu_buys(one: Advice) -> bool:
    """Whether a GPU earns its price: the work is not much cheaper, nor as cheap and nearly as fast,
    without it."""
    cost, factor = one.work_cost_factor, one.time_factor
    if cost is None or factor is None:
        return True
    return cost > 1 or (cost > MUCH_CHEAPER and factor[1] > NEARLY_AS_FAST)
