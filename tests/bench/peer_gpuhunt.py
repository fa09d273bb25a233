"""gpuhunt's query over rows in its own CSV form, run by a Python that has gpuhunt installed.

`python peer_gpuhunt.py FOLDER RUNS` reads FOLDER/{provider}.csv into memory once, as gpuhunt keeps
its catalog, and prints the milliseconds of each query as JSON. Imports nothing of sizewright.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
from pathlib import Path

from gpuhunt import Catalog  # type: ignore[import-not-found,unused-ignore]
from gpuhunt._internal import storage  # type: ignore[import-not-found,unused-ignore]
from gpuhunt._internal.catalog import (  # type: ignore[import-not-found,unused-ignore]
    OFFLINE_PROVIDERS,
    ProviderCatalog,
)

#: What the demo's question comes to once somebody has worked out the memory by hand.
QUERY = {"min_gpu_memory": 80, "min_total_gpu_memory": 160, "min_memory": 64}


def main() -> None:
    """Loads, asks, and prints one JSON object."""
    folder, runs = Path(sys.argv[1]), int(sys.argv[2])
    catalog = Catalog(balance_resources=False, auto_reload=False)
    started = time.perf_counter()
    for provider in OFFLINE_PROVIDERS:
        path = folder / f"{provider}.csv"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        items = list(storage.load(io.StringIO(text), provider=provider)) if text else []
        catalog.catalog[provider] = ProviderCatalog(version="bench", items=items)
    catalog.loaded_at = time.monotonic()
    loaded = 1e3 * (time.perf_counter() - started)
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        found = catalog.query(**QUERY)
        times.append(1e3 * (time.perf_counter() - started))
        if not found:
            raise SystemExit("gpuhunt found nothing: it was not asked about these rows")
    rows = sum(len(each.items) for each in catalog.catalog.values())
    print(
        json.dumps(
            {
                "rows": rows,
                "found": len(found),
                "load_ms": loaded,
                "median_ms": statistics.median(times),
                "least_ms": min(times),
            }
        )
    )


if __name__ == "__main__":
    main()
