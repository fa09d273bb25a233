"""Maps measured host memory of networks on the CPU and of files read into pandas."""

from __future__ import annotations

from math import prod
from typing import Any

from tests.accuracy.case import Case, Unmapped

from sizewright_server.estimation.classical.frames import (
    FileColumns,
    estimate_csv,
    estimate_parquet,
)
from sizewright_server.estimation.classical.language_model import estimate_language_model
from sizewright_server.estimation.classical.network import (
    NetworkJob,
    estimate_checkpoint,
    estimate_keras,
    estimate_loader,
    estimate_torch,
)
from sizewright_server.estimation.classical.network_stages import Network, network_of
from sizewright_server.estimation.memory import MemoryEstimate

MIB = 2**20
MILLION = 1_000_000
CHECKPOINTS = {
    "ckpt_save": "save",
    "ckpt_load": "load",
    "ckpt_load_into": "load-into",
}
INFERENCE = ("infer", "inference", "predict", "forward", "eval", "evaluate")


def estimate_frame(work: Case) -> MemoryEstimate:
    """A file that pandas reads."""
    spec = work["file"]
    settings = work.get("settings") or {}
    size = settings.get("file_size_mib")
    params = work.get("params") or {}
    file = FileColumns(
        int(spec["rows"]),
        int(spec.get("floats") or 0),
        int(spec.get("floats_short") or 0) + int(spec.get("ints") or 0),
        int(spec.get("strs") or 0),
        int(spec.get("str_len") or 12),
        spec.get("str_unique"),
        None if size is None else int(float(size) * MIB),
        4 if params.get("dtype") == "float32" else 8,
        params.get("dtype") == "category",
    )
    if work["op"] == "read_csv":
        engine = params.get("engine") or work.get("engine") or "c"
        return estimate_csv(file, engine=str(engine))
    if work["op"] == "read_parquet":
        return estimate_parquet(file)
    raise Unmapped(f"operation {work['op']!r} of pandas is not known")


def estimate_network(work: Case) -> MemoryEstimate:
    """A PyTorch or Keras process."""
    operation = str(work.get("op"))
    if operation in CHECKPOINTS:
        count = int(float(work["params_m"]) * MILLION)
        return estimate_checkpoint(
            CHECKPOINTS[operation],
            count,
            mapped=bool(work.get("mmap")) or work.get("format") == "safetensors",
            touched=bool(work.get("touch")),
            item_bytes=2 if work.get("dtype") in ("bfloat16", "float16", "bf16", "fp16") else 4,
        )
    if operation == "dataloader":
        return estimate_loader(
            int(work["rows"]),
            int(work["cols"]),
            int(work["batch"]),
            int(work.get("workers") or 0),
            int(work.get("prefetch") or work.get("prefetch_factor") or 2),
            objects=work.get("storage") in ("list", "python", "objects"),
        )
    training = operation not in INFERENCE
    model = work["model"]
    if model.get("arch") == "hf":
        return _language_model(work, training=training)
    keras = work.get("fw") in ("tf", "tensorflow") or work.get("backend") == "tensorflow"
    net = network_of(model, pool_indices=not keras)
    job = NetworkJob(
        str(work.get("fw")),
        net,
        int(work["batch"]),
        training,
        _optimizer(work),
        bool((work.get("opt_kw") or {}).get("foreach")),
        work.get("amp") is not None,
        _data_bytes(work, net),
        str(work.get("pipeline") or "arrays"),
    )
    return estimate_keras(job) if keras else estimate_torch(job)


def _optimizer(work: Case) -> str:
    # Keras jobs that name none were compiled with Adam.
    return str(work.get("optimizer") or ("adam" if work.get("fw") != "torch" else "sgd"))


def _data_bytes(work: Case, net: Network) -> int:
    rows = int(work.get("rows") or work.get("dataset_rows") or 0)
    labels = 8 if rows else 0
    return rows * (net.inputs * 4 + labels)


def _language_model(work: Case, *, training: bool) -> MemoryEstimate:
    model: dict[str, Any] = work["model"]
    config = dict(model["config"])
    if not prod((work.get("batch") or 0, model.get("seq") or 0)):
        raise Unmapped("batch or sequence length is not stated")
    return estimate_language_model(
        config,
        int(work["batch"]),
        int(model["seq"]),
        optimizer=_optimizer(work) if training else None,
        foreach=bool((work.get("opt_kw") or {}).get("foreach")),
    )
