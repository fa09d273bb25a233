"""A configuration of Hugging Face accelerate that lays the run out as the plan does."""

from __future__ import annotations

from typing import Any

import yaml

from sizewright.v1 import estimate_pb2
from sizewright_client.export.fsdp import fsdp_config, parallelism_config, sharded_by_fsdp
from sizewright_client.export.launchers import (
    HEAD_NODE,
    NVME_PATH,
    PORT,
    argument,
    offloads,
    refuse_left,
    stated_layout,
)
from sizewright_client.export.selection import ExportError, Selection
from sizewright_client.export.trainer import TrainerWords, remarks, trainer_words

#: How accelerate calls our precisions.
MIXED = {"bf16-mixed": "bf16", "fp16-mixed": "fp16"}


def accelerate(selection: Selection) -> str:
    """A configuration of Hugging Face accelerate (`accelerate launch --config_file`)."""
    layout = selection.plan.layout
    fsdp = sharded_by_fsdp(layout)
    words = trainer_words(selection, wrapped=fsdp)
    run = selection.workload.training
    values: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "num_machines": selection.plan.node_count,
        "num_processes": layout.gpus,
        "machine_rank": 0,
        "main_training_function": "main",
        "mixed_precision": MIXED.get(run.precision, "no"),
        "use_cpu": False,
        "distributed_type": "NO" if layout.gpus == 1 else "MULTI_GPU",
    }
    said = stated_layout(selection)
    if fsdp:
        values["distributed_type"] = "FSDP"
        values["fsdp_config"] = fsdp_config(selection, said)
        mesh = parallelism_config(layout, said)
        if mesh:
            values["parallelism_config"] = mesh
    else:
        _data_parallel_only(layout, "accelerate's configuration")
        if layout.implementation == "deepspeed" and layout.zero:
            values["distributed_type"] = "DEEPSPEED"
            values["deepspeed_config"] = _zero(selection)
    refuse_left(said, "accelerate's configuration")
    text: str = yaml.safe_dump(values, sort_keys=False)
    return "\n".join([*_launch_line(words, selection.plan.node_count), *remarks(words), text])


def _launch_line(words: TrainerWords, nodes: int) -> list[str]:
    """How the script is started with the configuration, on each node, as a comment."""
    start = [f"{name}={value}" for name, value in words.environment.items()]
    start += ["accelerate launch --config_file THIS_FILE"]
    if nodes > 1:
        start += ["--machine_rank=$NODE_RANK", f"--main_process_ip={HEAD_NODE}"]
        start += [f"--main_process_port={PORT}"]
    start += ["train.py"]
    arguments = [argument(name, value) for name, value in words.values.items()]
    return ["# " + " ".join(start), *(f"#   {argument}" for argument in arguments)]


def _zero(selection: Selection) -> dict[str, Any]:
    layout, run = selection.plan.layout, selection.workload.training
    values: dict[str, Any] = {
        "zero_stage": layout.zero,
        "gradient_accumulation_steps": max(run.gradient_accumulation_steps, 1),
    }
    for name, device in offloads(layout).items():
        values[f"{name}_device"] = device
        if device == "nvme":
            values[f"{name}_nvme_path"] = NVME_PATH
    return values


def _data_parallel_only(layout: estimate_pb2.Layout, what: str) -> None:
    for name in ("tp", "pp", "cp", "ep"):
        if getattr(layout, name) > 1:
            raise ExportError(
                f"{what} says nothing of {name} {getattr(layout, name)}; use torchrun and set it "
                "in the training code"
            )
