"""The measured process: runs one workload and writes its marks. Started by `measure.py`."""

from __future__ import annotations

import json
import sys
from importlib import import_module, metadata
from pathlib import Path

from reading import Marks, status_bytes

#: Module that runs each framework's jobs.
MODULES = {
    "sklearn": "jobs_sklearn",
    "xgboost": "jobs_boosting",
    "lightgbm": "jobs_boosting",
    "pandas": "jobs_frames",
    "torch": "jobs_torch",
    "tf": "jobs_keras",
    "keras": "jobs_keras",
}
PACKAGES = (
    "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "xgboost", "xgboost-cpu", "lightgbm",
    "torch", "transformers", "tensorflow", "tensorflow-cpu", "keras",
)  # fmt: skip


def versions() -> dict[str, str]:
    """What is installed beside this job."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> int:
    """Runs the workload of the first argument; the answer goes to the second."""
    workload = json.loads(sys.argv[1])
    marks = Marks()
    module = "jobs_batches" if "batch_rows" in workload else MODULES[workload["fw"]]
    facts = import_module(module).run(workload, marks)
    marks.set("end")
    Path(sys.argv[2]).write_text(
        json.dumps(
            {
                "high_water_bytes": status_bytes("VmHWM"),
                "marks": marks.rows,
                "facts": facts or {},
                "versions": versions(),
            }
        ),
        encoding="utf-8",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
