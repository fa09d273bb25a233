"""pandas jobs: a CSV or Parquet file, written once beside the temporary files, then read."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from reading import Marks

WRITE_ROWS = 100_000


def run(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    """Reads the file that a process of its own has written."""
    path = _written(workload["file"], "csv" if "csv" in workload["op"] else "parquet")
    import pandas as pd

    marks.set("imports")
    options = workload.get("params", {})
    frame = getattr(pd, workload["op"])(path, **options)
    marks.set("read")
    if workload.get("then"):
        kept = getattr(frame, workload["then"])()
        marks.set(workload["then"])
        del kept
    deep = int(frame.memory_usage(deep=True).sum())
    return {"frame_bytes": deep, "file_bytes": path.stat().st_size}


def _written(spec: dict[str, Any], suffix: str) -> Path:
    name = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"sizewright-{name}.{suffix}"
    if not path.exists():
        command = [sys.executable, __file__, json.dumps(spec), str(path)]
        subprocess.run(command, check=True)
    return path


def write(spec: dict[str, Any], path: Path) -> None:
    """Writes the columns `spec` names: floats, short floats, integers and strings."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    rows = spec["rows"]
    columns: dict[str, Any] = {}
    for i in range(spec.get("floats", 0)):
        columns[f"f{i}"] = rng.standard_normal(rows)
    for i in range(spec.get("floats_short", 0)):
        columns[f"s{i}"] = np.round(rng.random(rows) * 10, 2)
    for i in range(spec.get("ints", 0)):
        columns[f"i{i}"] = rng.integers(0, 10_000, rows)
    for i in range(spec.get("strs", 0)):
        length, unique = spec.get("str_len", 12), spec.get("str_unique", rows)
        words = np.array([f"{n:0{length}d}"[:length] for n in range(unique)], dtype=object)
        columns[f"t{i}"] = words[rng.integers(0, unique, rows)]
    frame = pd.DataFrame(columns)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False, chunksize=WRITE_ROWS)
    else:
        frame.to_parquet(path, index=False)


if __name__ == "__main__":
    write(json.loads(sys.argv[1]), Path(sys.argv[2]))
