"""Request messages to questions; raises RequestInvalid with every wrong field."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from sizewright.v1 import plan_pb2, sizing_service_pb2, workload_pb2
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.type_facts import FABRICS
from sizewright_catalog.values import (
    CPU_ARCHITECTURES,
    InstanceType,
    Machine,
    parse_instance_type_name,
)
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.problems import Violation
from sizewright_server.planning.plan import Constraints, Objective
from sizewright_server.questions import CheckQuestion, EstimateQuestion, RecommendQuestion
from sizewright_server.wire import models
from sizewright_server.wire.machines import SECONDS_PER_DAY
from sizewright_server.wire.owned_machines import read_machine
from sizewright_server.wire.planning import read_job, read_techniques
from sizewright_server.wire.violations import RequestInvalid, from_pydantic, one_of
from sizewright_server.wire.workloads import WorkloadReader

MAX_NAMES = 1000
MAX_MACHINES = 64
MAX_RESULTS = 100
DEFAULT_RESULTS = 10
MAX_GPUS = 65_536
OBJECTIVES: dict[int, Objective] = {
    plan_pb2.OBJECTIVE_UNSPECIFIED: "cost-per-hour",
    plan_pb2.OBJECTIVE_COST_PER_HOUR: "cost-per-hour",
    plan_pb2.OBJECTIVE_COST_PER_JOB: "cost-per-job",
    plan_pb2.OBJECTIVE_TIME: "time",
}
TERMS = {1: "on-demand", 2: "spot", 3: "committed"}


#: Finds the workload of a message's bytes that was read before, if any.
Seen = Callable[[bytes], AnyWorkload | None]


def read_estimate(
    message: sizing_service_pb2.EstimateRequest, catalog: Catalog, seen: Seen = lambda key: None
) -> EstimateQuestion:
    """The question of an EstimateRequest."""
    problems: list[Violation] = []
    key, workload = _workload(message.workload, seen, problems)
    for name in ("gpus", "gpus_per_node"):
        value = getattr(message, name)
        if not 0 <= value <= MAX_GPUS:
            problems.append(Violation(name, f"must be from 0 to {MAX_GPUS:,}, not {value}"))
    known = catalog.askable_devices
    if message.device and message.device not in known:
        problems.append(Violation("device", one_of("device", message.device, known)))
    if problems or workload is None:
        raise RequestInvalid(problems)
    return EstimateQuestion(
        workload, key, message.gpus, message.gpus_per_node, message.device or None
    )


def read_recommend(
    message: sizing_service_pb2.RecommendRequest, catalog: Catalog, seen: Seen = lambda key: None
) -> RecommendQuestion:
    """The question of a RecommendRequest."""
    problems: list[Violation] = []
    key, workload = _workload(message.workload, seen, problems)
    constraints = read_constraints(message.constraints, catalog, problems)
    objective = OBJECTIVES.get(message.objective)
    if objective is None:
        words = one_of("objective", str(message.objective), list(OBJECTIVES.values()))
        problems.append(Violation("objective", words))
    techniques = read_techniques(message, problems)
    job = read_job(message, catalog.askable_devices, problems)
    if objective in ("cost-per-job", "time") and not message.HasField("job"):
        problems.append(Violation("job", f"is required by the objective {objective!r}"))
    if message.constraints.max_cost_per_job_nanos_usd > 0 and not message.HasField("job"):
        problems.append(Violation("job", "is required by constraints.max_cost_per_job"))
    results = message.max_results
    if not 0 <= results <= MAX_RESULTS:
        problems.append(Violation("max_results", f"must be from 0 to {MAX_RESULTS}, not {results}"))
    machines = _machines(message, problems)
    if problems or workload is None or constraints is None or objective is None:
        raise RequestInvalid(problems)
    return RecommendQuestion(
        workload,
        key,
        constraints,
        results or DEFAULT_RESULTS,
        message.explain,
        machines,
        objective,
        techniques,
        job,
        message.advise,
    )


def read_check(
    message: sizing_service_pb2.CheckFitRequest, catalog: Catalog, seen: Seen = lambda key: None
) -> CheckQuestion:
    """The question of a CheckFitRequest."""
    problems: list[Violation] = []
    key, workload = _workload(message.workload, seen, problems)
    target = _target(message, catalog, problems)
    if not 0 <= message.node_count <= 1024:
        problems.append(
            Violation("node_count", f"must be from 0 to 1024, not {message.node_count}")
        )
    headroom = message.headroom
    if not math.isfinite(headroom) or not 0 <= headroom < 1:
        problems.append(Violation("headroom", f"must be from 0 to below 1, not {headroom}"))
    if problems or workload is None or target is None:
        raise RequestInvalid(problems)
    nodes = message.node_count or 1
    return CheckQuestion(workload, key, target, nodes, headroom, message.advise)


def _workload(
    message: workload_pb2.Workload, seen: Seen, problems: list[Violation]
) -> tuple[bytes, AnyWorkload | None]:
    """A message's bytes, which are equal for equal messages, and the workload it says."""
    key: bytes = message.SerializeToString(deterministic=True)
    known = seen(key)
    return key, WorkloadReader(problems).read(message) if known is None else known


def read_constraints(
    message: plan_pb2.Constraints, catalog: Catalog, problems: list[Violation]
) -> Constraints | None:
    """Constraints, their names held against the catalog's."""
    before = len(problems)
    names = _Names(message, problems)
    providers = names.read("providers", catalog.providers, "provider")
    regions = names.read("regions", catalog.regions, "region")
    devices = names.read("devices", catalog.askable_devices, "device")
    excluded = names.read("exclude_devices", catalog.askable_devices, "device")
    zones = names.read("zones", None, "zone")
    types = names.read("instance_types", None, "instance type")
    cpus = names.read("cpu_architectures", list(CPU_ARCHITECTURES), "architecture")
    fabrics = names.read("fabrics", list(FABRICS), "fabric")
    section = _numbers(message, problems)
    purchase = tuple(TERMS.get(number, "owned") for number in message.purchase)
    for i, term in enumerate(purchase):
        if term not in TERMS.values():
            words = f"{term!r} is not bought; use 'on-demand', 'spot' or 'committed'"
            problems.append(Violation(f"constraints.purchase.{i}", words))
    if message.stale_prices not in plan_pb2.StalePrices.values():
        problems.append(Violation("constraints.stale_prices", "must be 'refuse' or 'flag'"))
    if section is None or len(problems) > before:
        return None
    age = section.max_price_age_seconds
    return Constraints(
        providers=providers,
        regions=regions,
        zones=zones,
        purchase=purchase or ("on-demand", "spot"),
        max_nodes=section.max_nodes,
        min_nodes=section.min_nodes,
        min_gpus=section.min_gpus,
        max_gpus=section.max_gpus or None,
        devices=devices,
        exclude_devices=excluded,
        instance_types=types,
        cpu_architectures=cpus,
        min_vcpus=section.min_vcpus,
        headroom=section.headroom,
        max_price_age_days=None if age is None else age / SECONDS_PER_DAY,
        flag_stale_prices=message.stale_prices == plan_pb2.STALE_PRICES_FLAG,
        max_cost_per_hour_nanos_usd=section.max_cost_per_hour_nanos_usd or None,
        list_prices_only=message.list_prices_only,
        min_local_disk_bytes=section.min_local_disk_bytes,
        max_interruption=section.max_interruption,
        min_network_gbps=section.min_network_gbps,
        fabrics=fabrics,
        allow_unknown_network=message.allow_unknown_network,
        max_cost_per_job_nanos_usd=section.max_cost_per_job_nanos_usd or None,
    )


class _Names:
    """Reads the repeated names of constraints."""

    def __init__(self, message: plan_pb2.Constraints, problems: list[Violation]) -> None:
        self.message, self.problems = message, problems

    def read(self, field: str, known: list[str] | None, kind: str) -> tuple[str, ...]:
        """The names of a field; unknown ones become violations where the set is known."""
        names = tuple(getattr(self.message, field))
        if not names:
            return ()
        path = f"constraints.{field}"
        if len(names) > MAX_NAMES:
            self.problems.append(Violation(path, f"has more than {MAX_NAMES} entries"))
            return ()
        if known is not None:
            for i, name in enumerate(names):
                if name not in known:
                    self.problems.append(Violation(f"{path}.{i}", one_of(kind, name, known)))
        return names


def _numbers(
    message: plan_pb2.Constraints, problems: list[Violation]
) -> models.ConstraintsSection | None:
    values: dict[str, Any] = {
        "max_nodes": message.max_nodes or 1,
        "min_nodes": message.min_nodes or 1,
        "min_gpus": message.min_gpus,
        "max_gpus": message.max_gpus,
        "min_vcpus": message.min_vcpus,
        "headroom": message.headroom,
        "max_cost_per_hour_nanos_usd": message.max_cost_per_hour_nanos_usd,
        "max_price_age_seconds": None,
        "min_local_disk_bytes": message.min_local_disk_bytes,
        "max_interruption": None,
        "min_network_gbps": message.min_network_gbps,
        "max_cost_per_job_nanos_usd": message.max_cost_per_job_nanos_usd,
    }
    if message.HasField("max_interruption"):
        values["max_interruption"] = message.max_interruption
    if message.HasField("max_price_age"):
        age = message.max_price_age
        values["max_price_age_seconds"] = age.seconds + age.nanos / 1e9
    try:
        section = models.ConstraintsSection.model_validate(values)
    except ValidationError as error:
        problems += from_pydantic(error, "constraints")
        return None
    if section.min_nodes > section.max_nodes:
        words = f"{section.min_nodes} is more than max_nodes, {section.max_nodes}"
        problems.append(Violation("constraints.min_nodes", words))
    return section


def _machines(
    message: sizing_service_pb2.RecommendRequest, problems: list[Violation]
) -> tuple[Machine, ...]:
    if len(message.machines) > MAX_MACHINES:
        problems.append(Violation("machines", f"has more than {MAX_MACHINES} entries"))
        return ()
    read = [
        read_machine(machine, f"machines.{i}", problems)
        for i, machine in enumerate(message.machines)
    ]
    return tuple(machine for machine in read if machine is not None)


def _target(
    message: sizing_service_pb2.CheckFitRequest, catalog: Catalog, problems: list[Violation]
) -> InstanceType | Machine | None:
    kind = message.WhichOneof("target")
    if kind == "machine":
        return read_machine(message.machine, "machine", problems)
    if kind is None:
        problems.append(Violation("instance_type", "is required: 'instance_type' or 'machine'"))
        return None
    try:
        provider, name = parse_instance_type_name(message.instance_type)
        return catalog.instance_type(catalog.find_type(provider, name))
    except (ValueError, KeyError) as error:
        problems.append(Violation("instance_type", str(error.args[0])))
        return None
