"""Answers for machines: proto3 JSON, the same tree as YAML, and one CSV row per plan or part."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, MessageToJson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sizewright.v1 import catalog_pb2, estimate_pb2, plan_pb2, sizing_service_pb2
from sizewright_catalog.money import exact

_PLAN_COLUMNS = (
    "rank",
    "provider",
    "machine",
    "region",
    "zone",
    "term",
    "node_count",
    "device",
    "gpus_per_node",
    "gpus",
    "dp",
    "zero",
    "tp",
    "verdict",
    "gpu_low_bytes",
    "gpu_best_bytes",
    "gpu_high_bytes",
    "gpu_usable_bytes",
    "host_low_bytes",
    "host_best_bytes",
    "host_high_bytes",
    "host_usable_bytes",
    "cost_per_hour_usd",
    "price_kind",
    "price_day",
    "price_age_days",
    "price_source",
    "pp",
    "cp",
    "ep",
    "sharding",
    "sequence_parallel",
    "techniques",
    "job_low_hours",
    "job_best_hours",
    "job_high_hours",
    "cost_per_job_usd",
)
_PART_COLUMNS = (
    "pool",
    "phase",
    "part",
    "low_bytes",
    "best_bytes",
    "high_bytes",
    "confidence",
    "formula",
    "numbers",
    "source",
)
_SECONDS_PER_DAY = 86400


def as_json(answer: Message) -> str:
    """The proto3 JSON of an answer. Integers of 64 bits are strings in it, as proto3 has it."""
    return MessageToJson(answer, indent=2) + "\n"


def as_line(answer: Message) -> str:
    """The proto3 JSON of one answer of a stream, on a line of its own."""
    return MessageToJson(answer, indent=None) + "\n"


def as_yaml(answer: Message) -> str:
    """The tree of `as_json` as YAML."""
    import yaml

    text: str = yaml.safe_dump(MessageToDict(answer), sort_keys=False, allow_unicode=True)
    return text


def plans_as_csv(answer: sizing_service_pb2.RecommendResponse) -> str:
    """One row per recommendation, under a row of names."""
    return _table(_PLAN_COLUMNS, (_plan_row(plan) for plan in answer.recommendations))


def parts_as_csv(estimate: estimate_pb2.MemoryEstimate) -> str:
    """One row per part of every phase and pool; a part within a part is named "outer/inner"."""
    return _table(
        _PART_COLUMNS,
        (
            (_short(estimate_pb2.Pool, pool.pool), phase.name, *row)
            for pool in estimate.pools
            for phase in pool.phases
            for row in _part_rows(phase.parts, "")
        ),
    )


def pools_as_csv(pools: Iterable[plan_pb2.PoolFit]) -> str:
    """One row per pool of a check."""
    columns = ("pool", "verdict", "low_bytes", "best_bytes", "high_bytes", "usable_bytes")
    rows = (
        (
            _short(estimate_pb2.Pool, pool.pool),
            _short(plan_pb2.Verdict, pool.verdict),
            pool.peak.low_bytes,
            pool.peak.best_bytes,
            pool.peak.high_bytes,
            pool.usable_bytes,
        )
        for pool in pools
    )
    return _table(columns, rows)


def messages_as_csv(messages: Sequence[Message], columns: Sequence[str]) -> str:
    """One row per message; a column is the path of a field, its name the path with underscores."""
    rows = ([_at(message, path) for path in columns] for message in messages)
    return _table([path.replace(".", "_") for path in columns], rows)


def _table(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _plan_row(plan: plan_pb2.Recommendation) -> list[Any]:
    owned = plan.HasField("machine")
    offer, price, layout = plan.offer, plan.offer.price, plan.layout
    gpu = plan.machine.accelerators if owned else offer.instance_type.accelerators
    row: list[Any] = [plan.rank, offer.provider]
    row.append(plan.machine.name if owned else offer.instance_type.type)
    row += [offer.region, offer.zone, _short(catalog_pb2.PurchaseTerm, offer.term)]
    row += [plan.node_count, gpu.device, gpu.count, layout.gpus, layout.dp, layout.zero, layout.tp]
    row.append(_short(plan_pb2.Verdict, plan.verdict))
    for wanted in (estimate_pb2.POOL_GPU, estimate_pb2.POOL_HOST):
        row += _pool_cells(plan, wanted)
    row.append(exact(plan.cost_per_hour_nanos_usd))
    if owned:
        row += ["", "", "", ""]
    else:
        row.append(_short(catalog_pb2.PriceKind, price.kind))
        row.append(price.effective_time.ToDatetime().date().isoformat())
        row += [price.age.seconds // _SECONDS_PER_DAY, price.source]
    row += [layout.pp, layout.cp, layout.ep, layout.implementation, layout.sequence_parallel]
    row.append(" ".join(technique.name for technique in plan.techniques))
    return [*row, *_job_cells(plan)]


def _job_cells(plan: plan_pb2.Recommendation) -> list[Any]:
    if not plan.HasField("job_hours"):
        return ["", "", "", ""]
    hours = plan.job_hours
    cost = exact(plan.cost_per_job_nanos_usd)
    return [hours.low_hours, hours.best_hours, hours.high_hours, cost]


def _pool_cells(plan: plan_pb2.Recommendation, wanted: estimate_pb2.Pool.ValueType) -> list[Any]:
    for pool in plan.pools:
        if pool.pool == wanted:
            peak = pool.peak
            return [peak.low_bytes, peak.best_bytes, peak.high_bytes, pool.usable_bytes]
    return ["", "", "", ""]


def _part_rows(parts: Iterable[estimate_pb2.Part], above: str) -> Iterator[list[Any]]:
    for part in parts:
        span = part.size
        yield [
            above + part.name,
            span.low_bytes,
            span.best_bytes,
            span.high_bytes,
            _short(estimate_pb2.Confidence, part.confidence),
            part.formula,
            part.numbers,
            part.source,
        ]
        yield from _part_rows(part.parts, f"{above}{part.name}/")


def _short(enum: Any, number: int) -> str:
    """An enum value in lower-kebab case without its prefix; "" where it is unset."""
    if number == 0:
        return ""
    name = str(enum.Name(number))
    prefix = str(enum.Name(0)).removesuffix("UNSPECIFIED")
    return name.removeprefix(prefix).lower().replace("_", "-")


def _at(message: Message, path: str) -> Any:
    """The field at a path as a cell: times as ISO, lengths of time in seconds, enums by name."""
    value: Any = message
    for name in path.split("."):
        holder, value = value, getattr(value, name)
    field = holder.DESCRIPTOR.fields_by_name[name]
    if field.has_presence and not holder.HasField(name):
        return ""
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Duration):
        return value.ToJsonString().removesuffix("s")
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value
