"""Command line of the bench."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.classical import classical_figures
from tests.bench.command import catalog_figures, command_figures
from tests.bench.figures import Figure, table
from tests.bench.growth import growth_figures
from tests.bench.in_process import recommend_figures, step_figures
from tests.bench.peers import peer_figures
from tests.bench.refreshes import refresh_figures
from tests.bench.served import served_figures
from tests.bench.serving import serving_figures
from tests.bench.training import training_figures

from sizewright_server.engines import bundled_sizing

LIMITS = (
    "Wall-clock medians on whatever else the machine does: read load_average, and cpu_ms beside "
    "each. A figure whose budget is missed is in not_met."
)


def main() -> int:
    """Measures and writes the report; 0 whenever it was written, whatever is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--out", type=Path, required=True, help="report to write")
    parser.add_argument("--calls", type=int, default=200, help="calls of each kind, in process")
    parser.add_argument("--seconds", type=float, default=8.0, help="of load, for each server")
    arguments = parser.parse_args()
    before = os.getloadavg()
    figures, missing = measured(arguments.calls, arguments.seconds)
    report = {
        "made": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "machine": _machine(before),
        "basis": LIMITS,
        "figures": [figure.as_json() for figure in figures],
        "not_met": [figure.name for figure in figures if figure.met is False],
        "not_measured": missing,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(table(figures))
    for words in missing:
        print(f"not measured: {words}")
    return 0


def measured(calls: int, seconds: float) -> tuple[list[Figure], list[str]]:
    """Every figure, and what could not be measured here."""
    app = bundled_sizing()
    asked = recommend_figures(app, calls)
    figures = [*asked, *step_figures(app, calls), *classical_figures()]
    figures += [*training_figures(), *serving_figures()]
    figures += growth_figures(app, max(calls // 4, 1))
    figures += [*command_figures(), *catalog_figures()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures += served_figures(app, folder, seconds)
        figures += refresh_figures(folder)
        ours = {each.name: each.value for each in asked}
        peers, missing = peer_figures(app.catalog, ours, folder)
    return [*figures, *peers], missing


def _machine(before: tuple[float, float, float]) -> dict[str, Any]:
    return {
        "processors": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average_before": before,
        "load_average_after": os.getloadavg(),
    }


if __name__ == "__main__":
    sys.exit(main())
