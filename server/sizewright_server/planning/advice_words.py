"""Advice in sentences that can be read aloud."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sizewright_server.planning.comparing import Span
from sizewright_server.planning.objectives import in_words, value_of
from sizewright_server.planning.plan import Objective, Plan
from sizewright_server.planning.techniques import Applied

#: Times nearer to each other than this are not worth a sentence.
ALIKE = 0.03

#: What a field says that was not set.
UNSET = ("none", "false", "0", "")


def subject(steps: Sequence[Applied]) -> str:
    """Techniques and what they change, as the subject of a sentence."""
    named = [f"{step.title} ({_changes(step)})" for step in steps]
    text = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}, together,"
    return text[0].upper() + text[1:]


def makes_it_fit(steps: Sequence[Applied]) -> str:
    """Techniques with which a workload fits that does not without."""
    return f"{subject(steps)} {'makes' if len(steps) == 1 else 'make'} it fit"


def _changes(step: Applied) -> str:
    """What changes; of what is new the value alone."""
    return ", ".join(
        f"{change.field.rsplit('.', 1)[-1]} "
        + (change.after if change.before in UNSET else f"{change.before} to {change.after}")
        for change in step.changes
    )


def machine_words(plan: Plan) -> str:
    """The machine of a plan."""
    if plan.offer is None:
        return plan.machine.name.removeprefix("machines/") if plan.machine else ""
    nodes = f"{plan.node_count} x " if plan.node_count > 1 else ""
    return f"{nodes}{plan.offer.instance_type.provider} {plan.offer.instance_type.type}"


def outcome(aim: Objective, steps: Sequence[Applied], before: Plan | None, after: Plan) -> str:
    """What the techniques lead to."""
    reached = in_words(aim, value_of(aim, after))
    place = machine_words(after)
    if before is None:
        return f"{makes_it_fit(steps)}, at {reached} on {place}."
    gained = in_words(aim, value_of(aim, before) - value_of(aim, after))
    if after.offer is None and not after.cost_per_hour_nanos_usd and aim != "time":
        return f"{subject(steps)} saves {gained}: it fits your own {place}."
    return f"{subject(steps)} saves {gained}: {reached} on {place}."


def room(steps: Sequence[Applied]) -> str:
    """Of techniques that free memory and lead to no cheaper machine."""
    return f"{subject(steps)} frees memory; no cheaper machine fits with it."


def time_words(
    before: Plan, after: Plan, steps: Sequence[Applied], factor: Span | None, cost: float | None
) -> list[str]:
    """How long the same work takes on another plan, and whether it costs more in the end."""
    moved = machine_words(before) != machine_words(after)
    if factor is None:
        return _unmodelled(before, after, steps) if moved else []
    where = f" on {machine_words(after)}" if moved else ""
    made = []
    if abs(factor[1] - 1) >= ALIKE:
        low, best, high = factor
        made.append(
            f"The same work takes {best:.2g} times as long{where} ({low:.2g} to {high:.2g})."
        )
    if cost is not None and cost > 1 + ALIKE:
        made.append(f"So the whole job costs {100 * (cost - 1):,.0f} % more, though the hour less.")
    return made


def _unmodelled(before: Plan, after: Plan, steps: Sequence[Applied]) -> list[str]:
    """What is known of a time nobody models: the devices, or the cores and the techniques."""
    if after.variant.prepared.workload.on_gpu:
        old, new = _device(before), _device(after)
        words = f"The machine has {new} in place of {old}, a speed nobody modelled."
        return [words] if old != new else []
    cores = _vcpus(before), _vcpus(after)
    if cores[1] >= cores[0] or not cores[1]:
        return []  # An owner need not say how many there are.
    slower = cores[0] / cores[1] * prod(step.figures.time[1] for step in steps)
    most = f": up to {slower:,.2g} times as long" if slower > 1 + ALIKE else ", and less to do"
    return [f"The machine has {cores[1]} vCPUs in place of {cores[0]}{most}."]


def together(steps: Sequence[Applied], before: Plan, after: Plan, aim: Objective) -> str:
    """Of several techniques that do more together than any alone."""
    named = [f"{step.title} ({_changes(step)})" for step in steps]
    text = f"{', '.join(named[:-1])} and {named[-1]}"
    gained = in_words(aim, value_of(aim, before) - value_of(aim, after))
    reached = in_words(aim, value_of(aim, after))
    return (
        f"Together {text}, which leave results as they are, save {gained}: {reached} on "
        f"{machine_words(after)}."
    )


def dropped(before: Plan, after: Plan, steps: Sequence[Applied]) -> list[str]:
    """Techniques of the plan before that the plan after does without."""
    kept = {step.name for step in (*after.variant.steps, *steps)}
    gone = [step.title for step in before.variant.steps if step.name not in kept]
    return [f"It no longer needs {' or '.join(gone)}."] if gone else []


def _device(plan: Plan) -> str:
    target = plan.placement.target
    if target.device and target.slice < 1:
        return f"{target.slice:.0%} of a {target.device.name}"
    return f"{target.device_count} x {target.device.name}" if target.device else "no GPU"


def _vcpus(plan: Plan) -> int:
    return plan.placement.target.vcpus * plan.node_count
