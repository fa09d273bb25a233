"""XGBoost and LightGBM fed batch by batch, so that the table is never whole in memory.

`source` says how: "iterator" (QuantileDMatrix over a DataIter), "external" (ExtMemQuantileDMatrix,
its pages in a cache on disk), "sequence" (LightGBM's Sequence).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from reading import Marks


def run(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    """Trains on batches that were written to files of their own by a first pass."""
    data, rows = workload["data"], workload["batch_rows"]
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            _written(Path(folder) / f"{at}.npy", data, min(rows, data["rows"] - at), at)
            for at in range(0, data["rows"], rows)
        ]
        marks.set("data")
        train = _lightgbm if workload["source"] == "sequence" else _xgboost
        return train(workload, paths, Path(folder), marks)


def _written(path: Path, data: dict[str, Any], rows: int, seed: int) -> Path:
    drawn = np.random.default_rng(seed).standard_normal((rows, data["cols"]), dtype=np.float32)
    np.save(path, drawn.astype(data.get("dtype", "float32")))
    return path


def _target(part: Any) -> Any:
    return (part[:, 0] > part[:, 1]).astype(np.float32)


def _xgboost(
    workload: dict[str, Any], paths: list[Path], folder: Path, marks: Marks
) -> dict[str, Any]:
    import xgboost as xgb

    class Batches(xgb.DataIter):
        """A file at a time."""

        def __init__(self) -> None:
            self.at = 0
            prefix = str(folder / "cache") if workload["source"] == "external" else None
            super().__init__(cache_prefix=prefix)

        def next(self, input_data: Any) -> bool:
            """Hands over the next file; False when there is none."""
            if self.at == len(paths):
                return False
            part = np.load(paths[self.at])
            input_data(data=part, label=_target(part))
            self.at += 1
            return True

        def reset(self) -> None:
            """Back to the first file."""
            self.at = 0

    marks.set("imports")
    kind = xgb.ExtMemQuantileDMatrix if workload["source"] == "external" else xgb.QuantileDMatrix
    made = kind(Batches(), max_bin=256)
    marks.set("dmatrix")
    settings = {"objective": "binary:logistic", "nthread": workload.get("threads", 2)}
    xgb.train({**settings, **workload.get("params", {})}, made, workload.get("rounds", 10))
    marks.set("train")
    cached = sum(path.stat().st_size for path in folder.glob("cache*"))
    return {"cache_bytes": cached}


def _lightgbm(
    workload: dict[str, Any], paths: list[Path], folder: Path, marks: Marks
) -> dict[str, Any]:
    import lightgbm as lgb

    class Rows(lgb.Sequence):
        """A file's rows, mapped."""

        batch_size = 4096

        def __init__(self, path: Path) -> None:
            self.mapped = np.load(path, mmap_mode="r")

        def __getitem__(self, at: Any) -> Any:
            return np.asarray(self.mapped[at], dtype=np.float64)

        def __len__(self) -> int:
            return len(self.mapped)

    marks.set("imports")
    target = np.concatenate([_target(np.load(path, mmap_mode="r")) for path in paths])
    settings = {"objective": "binary", "verbose": -1, "num_threads": workload.get("threads", 2)}
    made = lgb.Dataset([Rows(path) for path in paths], target, params=settings)
    made.construct()
    marks.set("construct")
    lgb.train({**settings, **workload.get("params", {})}, made, workload.get("rounds", 10))
    marks.set("train")
    return {}
