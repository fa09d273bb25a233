"""Techniques, jobs and advice of the planner, read and written."""

from __future__ import annotations

from collections.abc import Sequence

from sizewright.v1 import plan_pb2, sizing_service_pb2
from sizewright_server.estimation.problems import Violation
from sizewright_server.planning.comparing import CPU_ONLY
from sizewright_server.planning.job import Job
from sizewright_server.planning.plan import FitLimit
from sizewright_server.planning.techniques import Applied, figures
from sizewright_server.wire.violations import one_of

#: Words that stand for several techniques.
EXACT, ALL = "exact", "all"
MOST_HOURS = 10**6
MOST_UNITS = 10**18


def read_techniques(
    message: sizing_service_pb2.RecommendRequest, problems: list[Violation]
) -> tuple[str, ...]:
    """The techniques a request allows, by name, in the order of the table."""
    if not message.techniques:
        return ()
    known = figures()
    allowed = set()
    for i, name in enumerate(message.techniques):
        if name == ALL:
            allowed |= {key for key, entry in known.items() if entry.searched}
        elif name == EXACT:
            allowed |= {
                key for key, entry in known.items() if entry.searched and not entry.changes_results
            }
        elif name == CPU_ONLY:
            words = "is advice alone, as it is planned on other machines; state 'accelerator: cpu'"
            problems.append(Violation(f"techniques.{i}", f"{name!r} {words}"))
        elif name in known:
            allowed.add(name)
        else:
            words = one_of("technique", name, [EXACT, ALL, *known])
            problems.append(Violation(f"techniques.{i}", words))
    return tuple(name for name in known if name in allowed)


def read_job(
    message: sizing_service_pb2.RecommendRequest, devices: Sequence[str], problems: list[Violation]
) -> Job | None:
    """The job of a request; None where it states none."""
    if not message.HasField("job"):
        return None
    job = message.job
    kind = job.WhichOneof("size")
    if kind is None:
        words = "must state one of 'tokens', 'samples' and 'runtime_hours'"
        problems.append(Violation("job", words))
        return None
    value = getattr(job, kind)
    most = MOST_HOURS if kind == "runtime_hours" else MOST_UNITS
    if not 0 < value <= most:
        problems.append(Violation(f"job.{kind}", f"must be above 0 and at most {most:,}"))
    measured = {}
    for i, speed in enumerate(job.throughput):
        path = f"job.throughput.{i}"
        if speed.device not in devices:
            problems.append(Violation(f"{path}.device", one_of("device", speed.device, devices)))
        if not 0 < speed.tokens_per_second_per_gpu < 1e12:
            words = f"must be above 0, not {speed.tokens_per_second_per_gpu}"
            problems.append(Violation(f"{path}.tokens_per_second_per_gpu", words))
        measured[speed.device] = speed.tokens_per_second_per_gpu
    return Job(
        tokens=job.tokens if kind == "tokens" else None,
        samples=job.samples if kind == "samples" else None,
        runtime_hours=job.runtime_hours if kind == "runtime_hours" else None,
        measured=measured,
    )


def technique_messages(steps: Sequence[Applied]) -> list[plan_pb2.Technique]:
    """Applied techniques with what they change and cost."""
    made = []
    for step in steps:
        known = step.figures
        low, best, high = known.time
        made.append(
            plan_pb2.Technique(
                name=step.name,
                changes=[
                    plan_pb2.FieldChange(field=c.field, before=c.before, after=c.after)
                    for c in step.changes
                ],
                changes_results=known.changes_results,
                cost=known.cost,
                time_factor_low=low,
                time_factor_best=best,
                time_factor_high=high,
                title=step.title,
                source=known.source,
            )
        )
    return made


def limit_messages(limits: Sequence[FitLimit]) -> list[plan_pb2.FitLimit]:
    """The largest values that fit."""
    return [
        plan_pb2.FitLimit(
            field=limit.field, stated=limit.stated, largest=limit.largest, at_least=limit.at_least
        )
        for limit in limits
    ]
