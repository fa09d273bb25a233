"""A refresh as large as AWS's: its memory, the load of its version, and what readers feel."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from tests.bench.figures import Figure, timed
from tests.bench.large_provider import OFFERS, Large
from tests.bench.questions import EXAMPLE

from sizewright.v1 import sizing_service_pb2
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.home import Home
from sizewright_catalog.refresh.events import Event
from sizewright_catalog.refresh.process import RefreshProcess
from sizewright_catalog.refresh.run import Options, Refresh
from sizewright_client import load_request
from sizewright_server.refreshing.live import LiveCatalog
from sizewright_server.servicer import dispatch

MIB = 2**20
LOADS = 15
#: How long the refresh runs, and is stopped, in turn; and calls after it, in seconds.
HALF_SECONDS, TAKEN_UP_SECONDS = 0.5, 3.0
METHOD = "/sizewright.v1.SizingService/Recommend"
EXTRA = "SIZEWRIGHT_EXTRA_PROVIDERS"


def refresh_figures(folder: Path) -> list[Figure]:
    """Refreshes twice, the second time over a version that holds the first; then reads."""
    home = Home(folder / "home")
    runs = [_refreshed(home, rise) for rise in ("0", "0.01")]
    loading = timed([lambda: Catalog.load(home.version(_version(home))) for _ in range(LOADS)])
    heaviest = max(runs, key=lambda run: run["extra_mib"])
    return [
        Figure(
            f"refresh of 1,400 types, 30 regions, {OFFERS:,} offers",
            heaviest["extra_mib"],
            "MiB",
            300,
            beside={
                "first_mib": runs[0]["extra_mib"],
                "over_itself_mib": runs[1]["extra_mib"],
                "seconds": heaviest["seconds"],
                "price_changes": heaviest["changes"],
            },
            basis="peak resident memory of the process less what it has with the catalog mapped",
        ),
        Figure(
            "loading that version, its hash checked",
            loading.median,
            "ms",
            150,
            beside={**loading.beside(), "offers": float(Catalog.load(_file(home)).offer_count)},
            basis="Catalog.load of a version in the page cache",
        ),
        _reader_figure(home),
    ]


def _refreshed(home: Home, rise: str) -> dict[str, float]:
    """One refresh in a process of its own, measured there."""
    command = [sys.executable, "-m", "tests.bench.refreshes", str(home.root), rise]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _reader_figure(home: Home) -> Figure:
    """Calls one after the other in this process while a refresh runs beside it.

    The refresh is stopped every other half second: both kinds of calls see the same neighbours.
    """
    live = LiveCatalog.of_home(home, None)
    request = load_request(str(EXAMPLE))
    os.environ[EXTRA] = "large=tests.bench.large_provider:Large"
    os.environ["SIZEWRIGHT_LARGE_RISE"] = "0.02"
    process = RefreshProcess(home, Large.name)
    ended: list[Event] = []
    listener = threading.Thread(target=lambda: ended.extend(_last(process)))
    listener.start()
    idle: list[float] = []
    busy = _latencies(live, request, HALF_SECONDS)
    while listener.is_alive():
        _signal(process, signal.SIGSTOP)
        idle += _latencies(live, request, HALF_SECONDS)
        _signal(process, signal.SIGCONT)
        busy += _latencies(live, request, HALF_SECONDS)
    # The new version is taken up now, beside these calls.
    busy += _latencies(live, request, TAKEN_UP_SECONDS)
    live.close()
    if not ended or ended[-1].stage != "done":
        raise RuntimeError(f"the refresh did not go in: {ended[-1:]}")
    quiet, during = (float(np.quantile(np.array(one), 0.99)) for one in (idle, busy))
    return Figure(
        "a reader's p99 during that refresh, against idle",
        during / quiet,
        "x",
        1.2,
        beside={
            "idle_p99_ms": 1e3 * quiet,
            "during_p99_ms": 1e3 * during,
            "idle_median_ms": 1e3 * float(np.median(idle)),
            "during_median_ms": 1e3 * float(np.median(busy)),
            "during_calls": float(len(busy)),
        },
        basis="one Recommend again and again; idle is the same run with the refresh stopped",
    )


def _latencies(
    live: LiveCatalog, request: sizing_service_pb2.RecommendRequest, seconds: float
) -> list[float]:
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        started = time.perf_counter()
        dispatch(live.app, METHOD, request)
        found.append(time.perf_counter() - started)
    return found


def _signal(process: RefreshProcess, number: signal.Signals) -> None:
    """To a process that may have ended just now."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)


def _last(process: RefreshProcess) -> list[Event]:
    return [event for event in process.events() if event.is_last]


def _version(home: Home) -> str:
    newest = max(home.versions.glob("*.npz"), key=lambda file: file.stat().st_mtime)
    return newest.stem


def _file(home: Home) -> Path:
    return home.version(_version(home))


def _measure(home: Home, rise: str) -> dict[str, float]:
    """Runs in the process of its own: one refresh, and what it took beyond a mapped catalog."""
    provider = Large()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = time.monotonic()
    last = Refresh(home, provider, Options(settings={"rise": rise}), lambda event: None).run()
    if last.stage != "done":
        raise RuntimeError(last.message)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    changes = last.changes
    return {
        "extra_mib": (peak - before) / MIB,
        "seconds": time.monotonic() - started,
        "offers": last.offers,
        "changes": 0 if changes is None else changes.added + changes.dearer,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(Home(Path(sys.argv[1])), sys.argv[2])))
