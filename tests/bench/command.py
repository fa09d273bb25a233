"""The command, cold and embedded; and what the catalog takes to load."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path

from tests.bench.figures import Figure, Timing, timed
from tests.bench.questions import EXAMPLE

from sizewright_catalog.catalog import Catalog
from sizewright_server.planning.index import OfferIndex

RUNS = 9


def command_figures() -> list[Figure]:
    """Seconds from the start of a new process to its end, with the first answer."""
    sizewright = Path(sys.executable).with_name("sizewright")
    used = os.times()
    asked = _runs([str(sizewright), "recommend", str(EXAMPLE)])
    now = os.times()
    cpu = now.children_user + now.children_system - used.children_user - used.children_system
    bare = _runs([sys.executable, "-c", "pass"])
    libraries = _runs([sys.executable, "-c", "import numpy, pydantic, google.protobuf, typer"])
    return [
        Figure(
            "command, cold and embedded, first answer",
            asked.median / 1e3,
            "s",
            0.6,
            beside={
                "p90_s": asked.p90 / 1e3,
                "least_s": asked.least / 1e3,
                "cpu_s": cpu / (RUNS + 1),
                "python_alone_s": bare.median / 1e3,
                "libraries_alone_s": libraries.median / 1e3,
            },
            basis=f"a new process each time, {RUNS} runs, compiled files on disk",
        )
    ]


def _runs(command: Sequence[str]) -> Timing:
    """Runs as a user would, without what would keep Python from using compiled files."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SIZEWRIGHT", "PYTHON"))}
    run = partial(subprocess.run, command, stdout=subprocess.DEVNULL, check=True, env=env)
    run()
    return timed([run] * RUNS)


def catalog_figures() -> list[Figure]:
    """Milliseconds to a verified catalog, beside reading the file alone."""
    path = Path(str(resources.files("sizewright_catalog").joinpath("data/snapshot.npz")))
    loads = timed([Catalog.load] * RUNS)
    reads = timed([path.read_bytes] * RUNS)
    catalog = Catalog.load()
    index = timed([partial(OfferIndex, catalog)] * RUNS)
    return [
        Figure(
            "catalog load, hash verified",
            loads.median,
            "ms",
            150,
            beside={**loads.beside(), "read_file_ms": reads.median, "index_ms": index.median},
            basis=f"{catalog.offer_count:,} offers, {path.stat().st_size / 1e6:.1f} MB",
        )
    ]
