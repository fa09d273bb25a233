"""Maps measured host memory of networks on the CPU and of files read into pandas."""

from __future__ import annotations

from math import prod
from typing import Any

from tests.accuracy.case import Case, Unmapped
from tests.accuracy.keras_models import keras_json

from sizewright_server.estimation.classical.frames import (
    FileColumns,
    estimate_csv,
    estimate_parquet,
)
from sizewright_server.estimation.classical.language_model import estimate_language_model
from sizewright_server.estimation.classical.loading import estimate_checkpoint, estimate_loader
from sizewright_server.estimation.classical.network import NetworkJob, estimate_torch
from sizewright_server.estimation.classical.network_stages import network_of
from sizewright_server.estimation.host_states import state_width
from sizewright_server.estimation.keras.cpu import estimate_cpu
from sizewright_server.estimation.keras.graph import network_from_json
from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.optimizers import FP32, optimizers
from sizewright_server.estimation.workload import (
    Dataset,
    Inference,
    ModelSource,
    Optimizer,
    Training,
)

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
    floats = int(spec.get("floats") or 0)
    if params.get("columns"):
        chosen = len(params["columns"])
        size = None if size is None else float(size) * chosen / max(1, floats)
        floats = chosen
    file = FileColumns(
        int(spec["rows"]),
        floats,
        int(spec.get("floats_short") or 0) + int(spec.get("ints") or 0),
        int(spec.get("strs") or 0),
        int(spec.get("str_len") or 12),
        spec.get("str_unique"),
        None if size is None else int(float(size) * MIB),
        4 if params.get("dtype") == "float32" else 8,
        {"category": "categorical", "object": "object"}.get(str(params.get("dtype")), "arrow"),
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
    if work.get("fw") in ("tf", "tensorflow", "keras"):
        return estimate_cpu(_keras_job(work, training=training))
    net = network_of(model)
    return estimate_torch(
        NetworkJob(
            "torch",
            net,
            int(work["batch"]),
            training,
            _optimizer(work),
            bool((work.get("opt_kw") or {}).get("foreach")),
            work.get("amp") is not None,
            _data_bytes(work, net.inputs),
        )
    )


def _keras_job(work: Case, *, training: bool) -> KerasWorkload:
    """A small Keras model by kind, through the JSON it would be saved as."""
    net = network_from_json(work.get("json") or keras_json(work["model"]))
    torch = work.get("fw") == "keras" and work.get("backend", "torch") == "torch"
    rows = int(work.get("rows") or work.get("dataset_rows") or 0)
    width = state_width(optimizers()[_optimizer(work)], FP32) if training else 0.0
    return KerasWorkload(
        net,
        training=training,
        batch=int(work["batch"]),
        states_width=width,
        backend="torch" if torch else "tensorflow",
        on_gpu=False,
        dataset=Dataset(rows=rows, container="in-memory") if rows else None,
    )


def _optimizer(work: Case) -> str:
    # Keras jobs that name none were compiled with Adam.
    name = str(work.get("optimizer") or ("adam" if work.get("fw") != "torch" else "sgd"))
    return "sgd-momentum" if name == "momentum" else name


def _data_bytes(work: Case, inputs: int) -> int:
    rows = int(work.get("rows") or work.get("dataset_rows") or 0)
    labels = 8 if rows else 0
    return rows * (inputs * 4 + labels)


def _language_model(work: Case, *, training: bool) -> MemoryEstimate:
    model: dict[str, Any] = work["model"]
    config = dict(model["config"])
    if not prod((work.get("batch") or 0, model.get("seq") or 0)):
        raise Unmapped("batch or sequence length is not stated")
    batch, tokens = int(work["batch"]), int(model["seq"])
    cache: Any = "none" if "Bert" in str(config.get("class")) else "dynamic"
    foreach = bool((work.get("opt_kw") or {}).get("foreach"))
    run: Training | Inference = Inference(
        "transformers", "fp32", "fp32", batch, tokens, 0, cache, 0
    )
    if training:
        optimizer = Optimizer(_optimizer(work), "foreach" if foreach else "for-loop")
        run = Training("fp32", optimizer, batch, tokens)
    return estimate_language_model(ModelSource(config), run)
