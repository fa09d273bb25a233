"""Estimates every target of every case and sums up the errors."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.accuracy.case import Case, Mapped, Unmapped
from tests.accuracy.mapping import map_case
from tests.accuracy.serving_cases import serving_reading

from sizewright_catalog.devices import find_device
from sizewright_catalog.values import Device
from sizewright_server.estimation.estimator import UnsupportedWorkload, prepare
from sizewright_server.estimation.memory import ByteRange, MemoryEstimate
from sizewright_server.estimation.runtime import DeviceOverhead, device_overhead
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.devices import overhead_of, unsupported_reason

#: GPU names of the cases that are not the catalog's own.
GPU_NAMES = {
    "A100-80GB": "A100-80GB-SXM",
    "A100-SXM4-80GB": "A100-80GB-SXM",
    "A800-80GB": "A100-80GB-SXM",
    "A100-40GB": "A100-40GB-SXM",
    "H100-80GB": "H100-SXM",
    "H20-96GB": "H20",
    "A100": "A100-80GB-SXM",
    "H100": "H100-SXM",
    "H100-96GB": "H100-SXM",
    "H200-141GB": "H200-SXM",
    "GB200-192GB": "GB200",
}
#: Words before a GPU's name, and the size behind it, that the catalog's names go without.
DECORATION = re.compile(r"^(NVIDIA|Tesla)[ -]|-\d+GB$")
#: The size at the end of a name.
SIZE = re.compile(r"(\d+)GB$")


#: A device of another memory size is not the one that a case names.
NOMINAL_TOLERANCE = 0.12


class Report:
    """Collects results; `document` is the report's JSON."""

    def __init__(self) -> None:
        self.cases: list[dict[str, Any]] = []
        self.unsupported: list[dict[str, Any]] = []
        self.groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.refused: dict[str, int] = defaultdict(int)
        self.sanity: dict[str, list[float]] = defaultdict(list)

    def add(self, case: Case) -> None:
        """Scores one case."""
        try:
            mapped = map_case(case)
            estimate = mapped if isinstance(mapped, MemoryEstimate) else _estimate(mapped)
        except (Unmapped, UnsupportedWorkload) as reason:
            for target in case["targets"]:
                self._refuse(case, target, str(reason))
            return
        for target in case["targets"]:
            self._target(case, target, estimate)

    def _target(self, case: Case, target: dict[str, Any], estimate: MemoryEstimate) -> None:
        if target["metric"] == "fits":
            self._fits(case, target, estimate)
            return
        try:
            value = _reading(target, estimate)
        except Unmapped as reason:
            self._refuse(case, target, str(reason))
            return
        actual = target.get("bytes", target.get("count"))
        row = {
            "id": case["id"],
            "metric": target["metric"],
            "source": case.get("source"),
            "actual": actual,
            "low": value.low_bytes,
            "best": value.best_bytes,
            "high": value.high_bytes,
            "error": None if actual is None else value.best_bytes / actual - 1,
        }
        self.cases.append(row)
        if actual is None:
            return
        group = f"{case['kind']}/{target['metric']}"
        if target.get("scored"):
            self.groups[group].append(row)
        else:
            self.sanity[group].append(abs(value.best_bytes / actual - 1))

    def _fits(self, case: Case, target: dict[str, Any], estimate: MemoryEstimate) -> None:
        size = _capacity_bytes(case, float(target["gpu_memory_gb"]))
        peak = estimate.pool("gpu").peak
        verdict = "no"
        if peak.best_bytes <= size:
            verdict = "fits" if peak.high_bytes <= size else "tight"
        actual = target.get("value")
        row = {
            "id": case["id"],
            "metric": "fits",
            "source": case.get("source"),
            "actual": actual,
            "verdict": verdict,
            "error": None if actual is None else float((verdict != "no") != actual),
        }
        self.cases.append(row)
        if actual is not None and target.get("scored"):
            self.groups[f"{case['kind']}/fits"].append(row)

    def _refuse(self, case: Case, target: dict[str, Any], reason: str) -> None:
        metric = target["metric"]
        self.unsupported.append({"id": case["id"], "metric": metric, "reason": reason})
        if target.get("scored"):
            self.refused[f"{case['kind']}/{metric}"] += 1

    def document(self) -> dict[str, Any]:
        """The report."""
        names = sorted({*self.groups, *self.refused})
        return {
            "groups": {n: _sum_up(self.groups.get(n, []), self.refused[n]) for n in names},
            "sanity": [
                {
                    "group": name,
                    "n": len(errors),
                    "median_abs_error": sorted(errors)[len(errors) // 2],
                }
                for name, errors in sorted(self.sanity.items())
            ],
            "cases": self.cases,
            "unsupported": self.unsupported,
        }


def score(files: Iterable[Path]) -> dict[str, Any]:
    """The report over every case of the files."""
    report = Report()
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    report.add(json.loads(line))
    return report.document()


def _capacity_bytes(case: Case, gigabytes: float) -> int:
    """What a GPU of a stated name and size hands out; the size itself where the name is not known.

    A name without its size ("A100") is looked up with it.
    """
    name, nominal = str(case["workload"].get("gpu") or ""), gigabytes * 1024**3
    for candidate in (name, f"{name}-{gigabytes:.0f}GB"):
        device = _device(candidate)
        usable = device and (device.usable_bytes or device.driver_total_bytes)
        if usable and abs(usable / nominal - 1) < NOMINAL_TOLERANCE:
            return usable
    return int(nominal)


def _median(errors: list[float]) -> float:
    return sorted(errors)[len(errors) // 2]


def _estimate(mapped: Mapped) -> MemoryEstimate:
    prepared = prepare(mapped.workload)
    layout = mapped.workload.run.layout or Layout()
    return prepared.estimate(layout, mapped.ranks_per_node, _overhead(mapped.device), replay=True)


def _device(name: str) -> Device | None:
    """The catalog's device of a case's name, with or without its maker and its size."""
    plain = DECORATION.sub("", name)
    for candidate in (name, plain, DECORATION.sub("", plain)):
        device = find_device(GPU_NAMES.get(candidate, candidate))
        if device is not None:
            return device
    return None


def _overhead(name: str | None) -> DeviceOverhead:
    device = _device(name or "")
    if device is None or unsupported_reason(device):
        return device_overhead(None, None)
    overhead, size = overhead_of(device), SIZE.search(name or "")
    usable = overhead.capacity_bytes or 0
    if size and abs(usable / (int(size[1]) * 1024**3) - 1) >= NOMINAL_TOLERANCE:
        # A part of another size, such as the 96 GB H100: its overheads hold, its capacity does not.
        return replace(overhead, capacity_bytes=None)
    return overhead


def _reading(target: dict[str, Any], estimate: MemoryEstimate) -> ByteRange:
    """The estimate's number for a target's reading and scope. Raises Unmapped for another."""
    metric, scope = target["metric"], target["scope"]
    if metric == "host_ram":
        return estimate.pool("host").peak
    if estimate.serving is not None:
        return serving_reading(target, estimate)
    gpu = estimate.pool("gpu").gpu
    if gpu is None or scope not in ("single_gpu", "worst_gpu", "last_rank"):
        raise Unmapped(f"scope {scope!r} is not built yet")
    stages = estimate.pool("gpu").stages
    if scope == "last_rank" and stages:
        last = stages[-1]
        return last.reserved if target["reading"] == "reserved" else last.allocated
    if metric == "weights":
        part = next(p for p in estimate.pool("gpu").phases[0].parts if p.name == "weights")
        return part.size
    readings = {"allocated": gpu.allocated, "active": gpu.allocated, "reserved": gpu.reserved}
    if metric in ("kv_cache", "kv_tokens", "kv_blocks", "activation_peak", "non_torch"):
        raise Unmapped(f"metric {metric!r} is an engine's own")
    return readings.get(target["reading"], gpu.device)


def _sum_up(rows: list[dict[str, Any]], unsupported: int) -> dict[str, Any]:
    """One group's figures; shares and ratios are over the answered targets."""
    answered = len(rows)
    summary: dict[str, Any] = {"n": answered + unsupported, "unsupported": unsupported}
    if not answered:
        return summary
    errors = sorted(abs(row["error"]) for row in rows)
    summary["median_abs_error"] = errors[answered // 2]
    summary["p90_abs_error"] = errors[min(answered - 1, int(0.9 * answered))]
    if "high" not in rows[0]:
        summary["share_right"] = sum(row["error"] == 0 for row in rows) / answered
        return summary
    high = sorted(row["high"] / row["actual"] for row in rows)
    low = sorted(row["low"] / row["actual"] for row in rows)
    summary["share_within_high"] = sum(ratio >= 1 for ratio in high) / answered
    summary["share_above_low"] = sum(ratio <= 1 for ratio in low) / answered
    summary["median_high_over_actual"] = high[answered // 2]
    summary["median_low_over_actual"] = low[answered // 2]
    return summary
