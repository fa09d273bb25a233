"""The tables the jobs run on, made in slices so that making them sets no high-water mark."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SLICE_ROWS = 20_000
SEED = 0


def make_matrix(data: dict[str, Any]) -> Any:
    """The features: a NumPy array, a CSR matrix, or a pandas frame, as `kind` says."""
    rng = np.random.default_rng(SEED)
    rows, cols, dtype = data["rows"], data["cols"], np.dtype(data.get("dtype", "float64"))
    kind = data.get("kind", "dense")
    if kind == "csr":
        return _csr(rng, rows, cols, data["density"], dtype)
    if kind == "categories":
        return _categories(rng, data)
    if kind == "text":
        return _documents(rng, data)
    matrix = np.empty((rows, cols), dtype=dtype, order=data.get("order", "C"))
    for start in range(0, rows, SLICE_ROWS):
        part = matrix[start : start + SLICE_ROWS]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    if data.get("nonnegative"):
        np.abs(matrix, out=matrix)
    if data.get("missing"):
        for start in range(0, rows, SLICE_ROWS):
            part = matrix[start : start + SLICE_ROWS]
            part[rng.random(part.shape) < data["missing"]] = np.nan
    if kind == "pandas":
        import pandas as pd

        return pd.DataFrame(matrix, copy=False)
    return matrix


def _csr(rng: np.random.Generator, rows: int, cols: int, density: float, dtype: Any) -> Any:
    import scipy.sparse as sp

    per_row = max(1, round(cols * density))
    count = rows * per_row
    indices = rng.integers(0, cols, size=count, dtype=np.int32)
    values = rng.random(count, dtype=np.float32).astype(dtype)
    pointers = np.arange(0, count + 1, per_row, dtype=np.int32)
    return sp.csr_matrix((values, indices, pointers), shape=(rows, cols))


def _categories(rng: np.random.Generator, data: dict[str, Any]) -> Any:
    """Columns of integer codes, or of strings in a frame, with `categories` values each."""
    codes = rng.integers(0, data["categories"], (data["rows"], data["cols"]))
    if data.get("dtype") != "str":
        return codes.astype(data.get("dtype", "int64"))
    import pandas as pd

    words = np.array([f"value-{n:06d}" for n in range(data["categories"])], dtype=object)
    storage = data.get("storage", "str")
    columns = {f"c{i}": pd.Series(words[codes[:, i]], dtype=storage) for i in range(data["cols"])}
    return pd.DataFrame(columns)


def _documents(rng: np.random.Generator, data: dict[str, Any]) -> list[str]:
    """Documents of `tokens` words, drawn with Zipf's frequencies from a vocabulary."""
    vocabulary = data.get("vocabulary", 50_000)
    words = np.array([f"w{n:x}" for n in range(vocabulary)], dtype=object)
    ranks = 1 / np.arange(1, vocabulary + 1)
    edges = np.cumsum(ranks / ranks.sum())
    made = []
    for _ in range(data["rows"]):
        drawn = np.minimum(np.searchsorted(edges, rng.random(data["tokens"])), vocabulary - 1)
        made.append(" ".join(words[drawn]))
    return made


def make_target(data: dict[str, Any]) -> NDArray[Any]:
    """Classes from a noisy linear score of the first columns; the score itself for `classes` 0."""
    rng = np.random.default_rng(SEED + 1)
    rows, classes = data["rows"], data.get("classes", 2)
    score = rng.standard_normal(rows, dtype=np.float32)
    if not classes:
        return score.astype(np.float64)
    edges = np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1])
    return np.searchsorted(edges, score).astype(np.int64)


def learnable_target(matrix: Any, data: dict[str, Any]) -> NDArray[Any]:
    """Classes (or values) that the first columns explain but for `noise` standard deviations."""
    rng = np.random.default_rng(SEED + 1)
    classes = data.get("classes", 2)
    if data.get("kind") in ("text", "categories"):
        return make_target(data)
    columns = min(5, data["cols"])
    part = matrix.iloc[:, :columns] if hasattr(matrix, "iloc") else matrix[:, :columns]
    part = part.toarray() if hasattr(part, "toarray") else np.asarray(part)
    score = np.nan_to_num(part).sum(axis=1)
    score = score + data.get("noise", 1.0) * rng.standard_normal(len(score), dtype=np.float32)
    if not classes:
        return score.astype(np.float64)
    edges = np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1])
    return np.searchsorted(edges, score).astype(np.int64)
