"""SkyPilot's optimizer over rows in its own CSV form, run by a Python that has skypilot installed.

`python peer_skypilot.py FOLDER RUNS`, with HOME set to FOLDER: SkyPilot reads its catalog from
there, and asks nobody on the network. Prints the milliseconds of each choice as JSON. Imports
nothing of sizewright.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import sky  # type: ignore[import-not-found,unused-ignore]
from sky import clouds, optimizer  # type: ignore[import-not-found,unused-ignore]

#: What the demo's question comes to once somebody has worked out the memory by hand.
MIN_GPU_MIB, MIN_TOTAL_MIB, MEMORY = 80_000, 160_000, "64+"


def main() -> None:
    """Loads, asks, and prints one JSON object."""
    folder, runs = Path(sys.argv[1]), int(sys.argv[2])
    (rows,) = folder.glob(".sky/catalogs/*/aws/vms.csv")
    wanted = accelerators(rows)
    enabled = [clouds.AWS()]
    # Which clouds a user has keys for is asked of the clouds; here the one is said to be there.
    optimizer.sky_check.get_cached_enabled_clouds_or_refresh = lambda *_, **__: enabled
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        started = time.perf_counter()
        best = ask(wanted)
        loaded = 1e3 * (time.perf_counter() - started)
        times = []
        for _ in range(runs):
            started = time.perf_counter()
            best = ask(wanted)
            times.append(1e3 * (time.perf_counter() - started))
    print(
        json.dumps(
            {
                "rows": sum(1 for _ in rows.open(encoding="utf-8")) - 1,
                "asked": len(wanted),
                "cost_per_hour": best.get_cost(3600),
                "load_ms": loaded,
                "median_ms": statistics.median(times),
                "least_ms": min(times),
            }
        )
    )


def accelerators(rows: Path) -> list[tuple[str, int]]:
    """Each accelerator that is large enough, in the smallest number that is enough in all."""
    found: dict[str, int] = {}
    with rows.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row["AcceleratorName"]:
                continue
            each, count = int(row["GpuInfo"].split(":")[-1].strip(" }]'")), row["AcceleratorCount"]
            if each >= MIN_GPU_MIB and each * float(count) >= MIN_TOTAL_MIB:
                name = row["AcceleratorName"]
                found[name] = min(found.get(name, 2**20), int(float(count)))
    return sorted(found.items())


def ask(wanted: list[tuple[str, int]]) -> Any:
    """The cheapest resources, on demand or spot."""
    task = sky.Task("bench", run="true")
    task.set_resources(
        {
            sky.Resources(accelerators={name: count}, memory=MEMORY, use_spot=spot)
            for name, count in wanted
            for spot in (False, True)
        }
    )
    with sky.Dag() as dag:
        dag.add(task)
    return optimizer.Optimizer.optimize(dag, quiet=True).tasks[0].best_resources


if __name__ == "__main__":
    main()
