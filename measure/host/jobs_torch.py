"""PyTorch jobs on the CPU: steps of training or inference, checkpoints, and loaders."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from reading import Marks


def run(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    """Runs the operation of the workload."""
    import torch

    torch.set_num_threads(2)
    if workload.get("model", {}).get("arch") == "hf":
        import transformers  # noqa: F401

    marks.set("imports")
    return OPERATIONS[workload["op"]](workload, marks) or {}


def _train(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    import torch
    from networks_torch import batch_of, build

    model = build(workload["model"])
    data = None
    if workload.get("dataset_rows"):
        data = torch.randn(workload["dataset_rows"], workload["model"]["in"])
    marks.set("data")
    optimizer = _optimizer(torch, workload, model)
    for step in range(workload.get("steps", 2)):
        inputs, labels = batch_of(workload["model"], workload["batch"])
        if data is not None:
            inputs = data[torch.randperm(len(data))[: workload["batch"]]]
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=workload.get("amp") == "bf16"):
            loss = _loss(torch, workload, model, inputs, labels)
        loss.backward()
        marks.set(f"backward{step}")
        optimizer.step()
        marks.set(f"step{step}")
    return {"parameters": sum(p.numel() for p in model.parameters())}


def _loss(torch: Any, workload: dict[str, Any], model: Any, inputs: Any, labels: Any) -> Any:
    if workload["model"]["arch"] == "hf":
        return model(input_ids=inputs, labels=labels).loss
    return torch.nn.functional.cross_entropy(model(inputs), labels)


def _optimizer(torch: Any, workload: dict[str, Any], model: Any) -> Any:
    options = workload.get("opt_kw", {})
    kinds = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01, **options),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, **options),
        "adam": lambda p: torch.optim.Adam(p, **options),
        "adamw": lambda p: torch.optim.AdamW(p, **options),
    }
    return kinds[workload["optimizer"]](model.parameters())


def _infer(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    import torch
    from networks_torch import batch_of, build

    model = build(workload["model"]).eval()
    marks.set("data")
    with torch.inference_mode():
        for step in range(workload.get("steps", 3)):
            inputs, _ = batch_of(workload["model"], workload["batch"])
            made = model(inputs)
            marks.set(f"forward{step}")
            del made
    return {"parameters": sum(p.numel() for p in model.parameters())}


def _state(workload: dict[str, Any]) -> dict[str, Any]:
    import torch

    each = workload["params_m"] * 1_000_000 // workload["tensors"]
    return {f"t{i}": torch.ones(each) for i in range(workload["tensors"])}


def _save(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:

    state = _state(workload)
    marks.set("data")
    with tempfile.TemporaryDirectory() as folder:
        _write(state, workload.get("format", "torch"), Path(folder))
        marks.set("saved")
    return {}


def _write(state: dict[str, Any], form: str, folder: Path) -> None:
    """Saves a state as torch.save, safetensors or torch.distributed.checkpoint does."""
    import torch

    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(state, folder / "state.safetensors")
    elif form == "distributed":
        import torch.distributed.checkpoint as dcp

        dcp.save(state, checkpoint_id=folder, no_dist=True)
    else:
        torch.save(state, folder / "state.pt")


def _load(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    import torch

    path = _checkpoint(workload)
    target = None
    if workload["op"] == "ckpt_load_into":
        target = torch.nn.ParameterDict(_state(workload))
    marks.set("data")
    if workload.get("format") == "safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, mmap=workload.get("mmap", False))
    marks.set("loaded")
    if target is not None:
        target.load_state_dict(state)
        marks.set("load_state_dict")
    if workload.get("touch"):
        sum(float(tensor.sum()) for tensor in state.values())
        marks.set("touched")
    return {}


def _checkpoint(workload: dict[str, Any]) -> Path:
    """A checkpoint that a process of its own has written."""
    import torch

    tensors = workload.get("format") == "safetensors"
    name = f"sizewright-{workload['params_m']}-{workload['tensors']}.{'st' if tensors else 'pt'}"
    path = Path(tempfile.gettempdir()) / name
    if not path.exists():
        child = os.fork()
        if child == 0:
            if tensors:
                from safetensors.torch import save_file

                save_file(_state(workload), path)
            else:
                torch.save(_state(workload), path)
            os._exit(0)
        os.waitpid(child, 0)
    return path


def _loader(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    rows, columns = workload["rows"], workload["cols"]
    labels = torch.zeros(rows, dtype=torch.int64)
    data: Any = TensorDataset(torch.randn(rows, columns), labels)
    if workload.get("storage") == "list":
        import numpy as np

        rng = np.random.default_rng(0)
        data = [(rng.standard_normal(columns, dtype=np.float32), 0) for _ in range(rows)]
    marks.set("data")
    # What consumes the batches is a training loop; making its optimizer imports torch._dynamo.
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    options: dict[str, Any] = {}
    if workload.get("start"):
        options["multiprocessing_context"] = workload["start"]
    if workload.get("prefetch"):
        options["prefetch_factor"] = workload["prefetch"]
    loader = DataLoader(
        data, workload["batch"], shuffle=True, num_workers=workload["workers"], **options
    )
    for inputs, _ in loader:
        inputs.sum()
    marks.set("epoch0")
    return {}


OPERATIONS: dict[str, Any] = {
    "train": _train,
    "infer": _infer,
    "ckpt_save": _save,
    "ckpt_load": _load,
    "ckpt_load_into": _load,
    "dataloader": _loader,
}
