"""Starts a PyTorch training run with `torchrun`, so that it is the one that was estimated."""

from __future__ import annotations

import json
import shlex
from typing import Any

from sizewright.v1 import estimate_pb2
from sizewright_client.export.fsdp import (
    as_environment,
    fsdp_config,
    parallelism_config,
    sharded_by_fsdp,
)
from sizewright_client.export.ledger import Ledger
from sizewright_client.export.selection import ExportError, Selection
from sizewright_client.export.trainer import REMARK, remarks, trainer_words

#: Where a launcher of several nodes finds the first one.
HEAD_NODE = "$HEAD_NODE"
PORT = 29500
#: What the `deepspeed` form is saved as beside the command.
DEEPSPEED_FILE = "ds_config.json"
#: Where the files of an offload to NVMe go; replace it by your own.
NVME_PATH = "/local_nvme"
#: Where DeepSpeed puts the optimizer and the parameters: `device`s of its two offloads.
OFFLOADED = {
    "optimizer": ("cpu", None),
    "optimizer-and-parameters": ("cpu", "cpu"),
    "nvme": ("nvme", None),
    "nvme-with-parameters": ("nvme", "nvme"),
}


def torchrun(selection: Selection, head: str = HEAD_NODE) -> str:
    """A `torchrun` command with the plan's nodes and ranks, and the arguments of the run.

    What FSDP is told stands in the variables that accelerate reads; what no argument says stands
    in remarks above the command.
    """
    layout = selection.plan.layout
    if layout.implementation == "megatron":
        raise ExportError("the plan's layout is Megatron-LM's; use --to megatron")
    fsdp = sharded_by_fsdp(layout)
    words = trainer_words(selection, wrapped=fsdp)
    said = stated_layout(selection)
    left = [*remarks(words), *_unsaid_sizes(layout)]
    environment = dict(words.environment)
    if fsdp:
        environment |= _fsdp_environment(selection, said)
    arguments = [argument(name, value) for name, value in words.values.items()]
    if layout.implementation == "deepspeed" and (layout.zero or layout.tp > 1):
        arguments.append(f"--deepspeed={DEEPSPEED_FILE}")
        left.insert(0, f"# {DEEPSPEED_FILE} is what --to deepspeed writes")
        said.describes("zero_buffers", "offload_share")
    left += [f"{REMARK} {one}" for one in said.left()]
    start = [f"{name}={value}" for name, value in environment.items()]
    command = " ".join([*rendezvous(selection, head), "train.py"])
    return "\n".join([*left, " \\\n  ".join([*start, command, *arguments]), ""])


def _fsdp_environment(selection: Selection, said: Ledger) -> dict[str, str]:
    layout = selection.plan.layout
    made = {"ACCELERATE_USE_FSDP": "true", **as_environment(fsdp_config(selection, said))}
    if layout.pp > 1 or layout.ep > 1 or layout.sequence_parallel:
        return made
    mesh = as_environment(parallelism_config(layout, said))
    return {**made, "ACCELERATE_USE_PARALLELISM_CONFIG": "true", **mesh} if mesh else made


def _unsaid_sizes(layout: estimate_pb2.Layout) -> list[str]:
    """A remark for each dimension of the layout that neither arguments nor variables say."""
    further = layout.pp > 1 or layout.ep > 1 or layout.sequence_parallel
    names = ["pp", "ep"]
    if further or not (sharded_by_fsdp(layout) or layout.implementation == "deepspeed"):
        names += ["tp", "cp"]
    made = [f"{REMARK} layout.{n}: {getattr(layout, n)}" for n in names if getattr(layout, n) > 1]
    if layout.sequence_parallel:
        made.append(f"{REMARK} layout.sequence_parallel: true")
    return made


def rendezvous(selection: Selection, head: str = HEAD_NODE) -> list[str]:
    """`torchrun` with its nodes and ranks, up to the script."""
    nodes = selection.plan.node_count
    words = ["torchrun", f"--nnodes={nodes}", f"--nproc-per-node={selection.ranks}"]
    if nodes == 1:
        return [*words, "--standalone"]
    return [*words, "--rdzv-backend=c10d", f"--rdzv-endpoint={head}:{PORT}"]


def stated_layout(selection: Selection) -> Ledger:
    """Settings of a stated layout beyond its sizes, which the plan's own layout has."""
    stated = selection.workload.training.parallelism.explicit
    said = Ledger("training.parallelism", stated)
    said.describes("dp", "zero", "tp", "pp", "cp", "ep", "offload", "implementation", "shard_size")
    said.describes("keep_gathered_after_forward", "expert_imbalance", "virtual_pipeline_stages")
    said.describes("sequence_parallel")
    if not said.peek("gradient_as_bucket_view"):
        said.describes("gradient_as_bucket_view")
    return said


def refuse_left(said: Ledger, what: str) -> None:
    """Raises ExportError for what a form did not say."""
    left = said.left()
    if left:
        raise ExportError(f"{what} says nothing of {'; '.join(left)}")


def offloads(layout: estimate_pb2.Layout) -> dict[str, str]:
    """Which of DeepSpeed's offloads a layout uses, and to which device."""
    names = ("offload_optimizer", "offload_param")
    devices = OFFLOADED.get(layout.offload, (None, None))
    return {name: device for name, device in zip(names, devices, strict=True) if device}


def argument(name: str, value: Any) -> str:
    """An argument as HfArgumentParser reads it; a list is given word by word."""
    if isinstance(value, list):
        return " ".join([f"--{name}", *(shlex.quote(str(one)) for one in value)])
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return f"--{name}={shlex.quote(text)}"
