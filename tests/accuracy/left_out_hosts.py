"""Scores each estimator with the figures that were fitted without it.

    python -m tests.accuracy.left_out_hosts tests/fixtures/host/measured.jsonl

Most formulas of classical jobs are read from code and have nothing fitted. What is fitted is of two
kinds: an estimator's own count of copies or of pair matrices, which is left to the median of the
others' in its table; and shares that several estimators use, which are fitted again, on a grid
between their bounds, to the cases of the others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from tests.accuracy.host_cases import estimate_host

from sizewright_server.estimation.classical import constants

Case = dict[str, Any]
#: Tables with an entry for each estimator.
OWN = ("copies", "pairwise", "output_copies")
#: Shares, and the jobs that use them: by estimator or kind of network.
SHARED: dict[tuple[str, str], tuple[str, ...]] = {
    ("trees", "unexplained_impurity"): (
        "RandomForestClassifier",
        "DecisionTreeClassifier",
        "ExtraTreesClassifier",
        "BaggingClassifier",
    ),
    ("trees", "kernel_rows"): ("SVC", "NuSVC"),
    ("network", "heap_fragmentation"): ("mlp", "cnn", "lstm", "gru", "transformer", "hf"),
    ("network", "keras_torch_copies"): ("cnn", "cnn-bn", "residual"),
    ("network", "tensorflow_convolution_copies"): ("cnn", "cnn-bn", "residual"),
    ("process", "loader_worker"): ("dataloader",),
    ("process", "loky_worker"): ("GridSearchCV", "cross_val_score", "BaggingClassifier"),
}
GRID = 9


@contextmanager
def value_of(table: str, key: str, value: float) -> Iterator[None]:
    """A constant with another value, its bounds widened to hold it."""
    entries = constants._table(table)
    known = entries[key]
    low, high = min(known.low, value), max(known.high, value)
    entries[key] = replace(known, value=value, low=low, high=high)
    try:
        yield
    finally:
        entries[key] = known


def name_of(case: Case) -> str:
    """What a case is of: the estimator, the kind of network, or the operation."""
    work = case["workload"]
    kind = (work.get("model") or {}).get("arch")
    return str(work.get("task") or kind or work.get("op") or work.get("api"))


def errors(cases: Sequence[Case]) -> list[float]:
    """Absolute errors of the best estimates."""
    made = []
    for case in cases:
        best = estimate_host(case).pool("host").peak.best_bytes
        made.append(abs(best / case["targets"][0]["bytes"] - 1))
    return made


def refitted(table: str, key: str, cases: Sequence[Case]) -> float:
    """The value between the bounds whose median error over the cases is least."""
    entry = constants.constant(table, key)
    grid = [entry.low + (entry.high - entry.low) * i / (GRID - 1) for i in range(GRID)]

    def score(value: float) -> float:
        with value_of(table, key, value):
            return median(errors(cases))

    return min(grid, key=score)


def left_out(cases: Sequence[Case]) -> dict[str, list[float]]:
    """Errors of the cases of each estimator, everything fitted to it left out."""
    by_name: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_name[name_of(case)].append(case)
    made: dict[str, list[float]] = {}
    for table in OWN:
        for key in constants.keys(table):
            if key in by_name:
                others = [constants.constant(table, k).value for k in constants.keys(table)]
                others.remove(constants.constant(table, key).value)
                with value_of(table, key, median(others)):
                    made[f"{table}: {key}"] = errors(by_name[key])
    for (table, key), users in SHARED.items():
        for user in users:
            rest = [case for name in users if name != user for case in by_name[name]]
            if rest and by_name[user]:
                with value_of(table, key, refitted(table, key, rest)):
                    made[f"{key}: {user}"] = errors(by_name[user])
    return made


def main() -> int:
    """Prints the errors of each estimator, with and without what was fitted to it."""
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy.left_out_hosts")
    parser.add_argument("cases", type=Path, help="measured cases, one a line")
    lines = parser.parse_args().cases.read_text(encoding="utf-8").splitlines()
    cases = [json.loads(line) for line in lines]
    without = left_out(cases)
    for name, found in without.items():
        worst = max(found)
        print(f"{name}: n {len(found)}, median {median(found):.3f}, worst {worst:.3f}")
    together = sorted(error for found in without.values() for error in found)
    p90 = together[min(len(together) - 1, int(0.9 * len(together)))]
    print(f"all left out: n {len(together)}, median {median(together):.3f}, p90 {p90:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
