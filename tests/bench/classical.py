"""Estimates of classical jobs: every job that was measured, one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.accuracy.host_cases import LIBRARIES, fit_job
from tests.bench.figures import Figure, timed

from sizewright_server.estimation.classical.estimate import estimate_fit
from sizewright_server.estimation.classical.job import FitJob

CASES = Path(__file__).parents[1] / "fixtures" / "host" / "measured.jsonl"
BUDGET_MS = 1.0


def classical_figures() -> list[Figure]:
    """The slowest of all jobs: the budget is for any."""
    jobs = measured_jobs()
    for _, job in jobs[:20]:
        estimate_fit(job)
    slowest, name = max((timed([_asking(job)] * 5).median, name) for name, job in jobs)
    basis = f"slowest of {len(jobs)} classical jobs ({name}), median of 5"
    return [Figure("estimate: any classical job", slowest, "ms", BUDGET_MS, basis=basis)]


def measured_jobs() -> list[tuple[str, FitJob]]:
    """The classical jobs among the measured cases."""
    with CASES.open(encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    return [
        (case["id"], fit_job(case["workload"]))
        for case in cases
        if case["workload"]["framework"] in LIBRARIES
    ]


def _asking(job: FitJob) -> Callable[[], object]:
    return lambda: estimate_fit(job)
