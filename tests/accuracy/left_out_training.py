"""Scores each source of training runs with the numbers that were fitted without it.

    python -m tests.accuracy.left_out_training training.jsonl fits.jsonl

Every source's own cases are estimated twice: as the data files say, and with the numbers of
`left_out_training.json` in the place of those that this source helped to fit. Sources that helped
with none have the same figures twice.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.accuracy.scoring import Report

from sizewright_server.estimation import doubts, reserved, states

TABLE = Path(__file__).with_name("left_out_training.json")
#: The groups that are judged, and the model kinds they hold.
GROUPS = ("training/allocated_peak", "training/reserved_peak", "fits/fits")
CATEGORIES = ("llm", "moe", "encoder", "encoder-decoder")
Groups = dict[str, dict[str, Any]]


def without() -> dict[str, dict[str, dict[str, Any]]]:
    """By source: the numbers of each data file as they are without it."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    return {
        source: {name: entry for name, entry in values.items() if not name.startswith("_")}
        for source, values in table.items()
        if not source.startswith("_")
    }


@contextmanager
def replaced(values: dict[str, dict[str, Any]]) -> Iterator[None]:
    """The data files with other numbers. Raises KeyError for a number that no file has."""
    tables: dict[str, dict[str, Any]] = {
        "reserved": reserved.reserved_shares(),
        "doubts": doubts._table(),
        "sharding": states._buffers(),
    }
    known = {name: {key: tables[name][key] for key in entries} for name, entries in values.items()}
    try:
        for name, entries in values.items():
            made = {k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()}
            tables[name].update(made)
        doubts.doubt_shares.cache_clear()
        yield
    finally:
        for name, entries in known.items():
            tables[name].update(entries)
        doubts.doubt_shares.cache_clear()


def project(source: str) -> str:
    """The project a source names first, with its owner."""
    return re.split(r"[\s@]", source)[0]


def scored(cases: Iterable[dict[str, Any]]) -> Groups:
    """The judged groups of some cases."""
    report = Report()
    for case in cases:
        report.add(case)
    found: Groups = report.document()["groups"]
    return {name: found[name] for name in GROUPS if found.get(name, {}).get("n")}


def left_out(cases: Iterable[dict[str, Any]]) -> dict[str, tuple[Groups, Groups]]:
    """By source: its groups as the data files say, and with the numbers fitted without it."""
    by_source: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for case in cases:
        if case["category"] in CATEGORIES:
            by_source[project(str(case["source"]))].append(case)
    table, found = without(), {}
    for source, own in sorted(by_source.items()):
        fitted = scored(own)
        if not fitted:
            continue
        with replaced(table.get(source, {})):
            found[source] = (fitted, scored(own))
    return found


def line(groups: Groups, name: str) -> str:
    """A group's figures in one line."""
    group = groups[name]
    if "median_abs_error" not in group:
        return "none answered"
    if "share_right" in group:
        return f"right {group['share_right']:.3f}"
    return (
        f"median {group['median_abs_error']:.3f}, p90 {group['p90_abs_error']:.3f}, "
        f"within high {group['share_within_high']:.2f}, above low {group['share_above_low']:.2f}, "
        f"high/actual {group['median_high_over_actual']:.2f}"
    )


def main() -> int:
    """Prints the groups of every source, with and without what was fitted to it."""
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy.left_out_training")
    parser.add_argument("cases", type=Path, nargs="+", help="ground-truth files, a case a line")
    cases = [
        json.loads(text)
        for file in parser.parse_args().cases
        for text in file.read_text(encoding="utf-8").splitlines()
    ]
    table = without()
    for source, (fitted, left) in left_out(cases).items():
        for name in fitted:
            print(f"{source}: {name}: n {fitted[name]['n']}, {line(fitted, name)}")
            if source in table:
                print(f"{source}: {name}: left out: {line(left, name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
