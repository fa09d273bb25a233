"""Scores each source with the numbers that were fitted without it.

    python -m tests.accuracy.left_out serving.jsonl

For each source of `left_out.json` its cases are estimated with the numbers the other sources give.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.accuracy.scoring import Report

from sizewright_server.estimation.serving.rules import Rule, Rules

TABLE = Path(__file__).with_name("left_out.json")


@contextmanager
def without(values: dict[str, dict[str, float]]) -> Iterator[None]:
    """Rules of engines with other values, their bounds widened to hold them."""
    known = Rules.rule

    def rule(self: Rules, name: str) -> Rule:
        made = known(self, name)
        value = values.get(self.engine, {}).get(name)
        if value is None:
            return made
        return replace(made, value=value, low=min(made.low, value), high=max(made.high, value))

    with patch.object(Rules, "rule", rule):
        yield


def left_out(cases: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Groups of each source's own cases, estimated without it."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    found = {}
    for source, values in table.items():
        if source.startswith("_"):
            continue
        report = Report()
        with without(values):
            for case in cases:
                if source in str(case.get("source")):
                    report.add(case)
        found[source] = report.document()["groups"]
    return found


def main() -> int:
    """Prints the groups of every source."""
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy.left_out")
    parser.add_argument("cases", type=Path, help="ground-truth file, a case a line")
    lines = parser.parse_args().cases.read_text(encoding="utf-8").splitlines()
    for source, groups in left_out([json.loads(line) for line in lines]).items():
        for name, group in groups.items():
            if "median_abs_error" in group:
                print(
                    f"{source}: {name}: n {group['n']}, median {group['median_abs_error']:.4f}, "
                    f"p90 {group['p90_abs_error']:.4f}, "
                    f"within high {group['share_within_high']:.2f}, "
                    f"above low {group['share_above_low']:.2f}"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
