"""Peak host memory of one real job in a fresh process: `measure.py ROW`.

ROW is a file with one case or its workload, or inline JSON. The answer is JSON on standard output:
the workload, the marks the job set, and the peak. A single process is read from the kernel's
high-water mark; a job that starts others (`multiproc`) is sampled as a tree, by proportional set
size, every `--interval` seconds. `env` of a workload is added to the job's environment, so that an
allocator's settings are measured as they are set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

JOB = Path(__file__).with_name("job.py")
THREADS = "2"
QUIET = {
    "OMP_NUM_THREADS": THREADS,
    "OPENBLAS_NUM_THREADS": THREADS,
    "MKL_NUM_THREADS": THREADS,
    "OMP_WAIT_POLICY": "passive",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTEROP_THREADS": THREADS,
    "TF_NUM_INTRAOP_THREADS": THREADS,
    "CUDA_VISIBLE_DEVICES": "",
}


def read_workload(text: str) -> dict[str, Any]:
    """The workload of a row: a file's first line or whole JSON, or the text itself."""
    path = Path(text)
    if not text.lstrip().startswith("{") and path.is_file():
        text = path.read_text(encoding="utf-8").strip()
    row = json.loads(text)
    return dict(row.get("workload", row))


def tree_pss_bytes(root: psutil.Process) -> int:
    """Proportional set size of a process and its children; those that just ended count 0."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
    return total


def run(workload: dict[str, Any], *, interval: float, seconds: float) -> dict[str, Any]:
    """Runs the job and reads its peak. Raises RuntimeError with the job's last words."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as answer:
        command = [sys.executable, str(JOB), json.dumps(workload), answer.name]
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            env={**os.environ, **QUIET, **workload.get("env", {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        tree_peak = 0
        root = psutil.Process(process.pid)
        while process.poll() is None:
            if time.monotonic() - started > seconds:
                process.kill()
            if workload.get("multiproc"):
                try:
                    tree_peak = max(tree_peak, tree_pss_bytes(root))
                except psutil.NoSuchProcess:
                    break
            time.sleep(interval)
        words = process.communicate()[1]
        text = answer.read()
    if process.returncode or not text:
        raise RuntimeError(f"the job ended with {process.returncode}: {words[-2000:]}")
    made: dict[str, Any] = json.loads(text)
    made["peak_bytes"] = tree_peak or made["high_water_bytes"]
    made["wall_s"] = round(time.monotonic() - started, 2)
    return {"workload": workload, **made}


def main() -> int:
    """Measures one row."""
    parser = argparse.ArgumentParser(prog="measure.py")
    parser.add_argument("row", help="a file with a case or a workload, or inline JSON")
    parser.add_argument("--interval", type=float, default=0.05, help="seconds between samples")
    parser.add_argument("--seconds", type=float, default=600, help="longest run")
    arguments = parser.parse_args()
    made = run(read_workload(arguments.row), interval=arguments.interval, seconds=arguments.seconds)
    print(json.dumps(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
