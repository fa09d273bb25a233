"""A DeepSpeed configuration that shards as the plan does."""

from __future__ import annotations

import json
from typing import Any

from sizewright.v1 import estimate_pb2
from sizewright_client.export.launchers import NVME_PATH, offloads
from sizewright_client.export.ledger import Ledger
from sizewright_client.export.selection import ExportError, Selection
from sizewright_client.export.trainer import check_training

#: DeepSpeed's names of our buffers; those of stage 3 carry its prefix.
BUFFERS = {
    "reduce_bucket_size": "reduce_bucket_size",
    "allgather_bucket_size": "allgather_bucket_size",
    "prefetch_bucket_size": "stage3_prefetch_bucket_size",
    "param_persistence_threshold": "stage3_param_persistence_threshold",
    "max_live_parameters": "stage3_max_live_parameters",
    "max_reuse_distance": "stage3_max_reuse_distance",
    "overlap_comm": "overlap_comm",
    "contiguous_gradients": "contiguous_gradients",
}


def deepspeed(selection: Selection) -> str:
    """A DeepSpeed configuration (`ds_config.json`)."""
    check_training(selection)
    run, layout = selection.workload.training, selection.plan.layout
    if layout.implementation != "deepspeed" and layout.zero:
        raise ExportError(
            f"the plan shards with {layout.implementation}, not with DeepSpeed; "
            "state the layout with implementation: deepspeed"
        )
    said = Ledger("training.parallelism", run.parallelism.explicit)
    steps = max(run.gradient_accumulation_steps, 1)
    values: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": run.micro_batch,
        "gradient_accumulation_steps": steps,
        "train_batch_size": run.micro_batch * steps * layout.dp,
        "zero_optimization": _zero(layout, said),
        **_tensor_parallel(layout),
    }
    kind = run.precision.removesuffix("-mixed")
    if kind in ("bf16", "fp16"):
        values[kind] = {"enabled": True}
    elif kind not in ("fp32", "tf32"):
        raise ExportError(f"a DeepSpeed configuration says nothing of training.precision: {kind}")
    if run.gradient_reduce_dtype:
        values["communication_data_type"] = run.gradient_reduce_dtype
    _refuse_left(said)
    return json.dumps(values, indent=2) + "\n"


def _zero(layout: estimate_pb2.Layout, said: Ledger) -> dict[str, Any]:
    values: dict[str, Any] = {"stage": layout.zero}
    for name, device in offloads(layout).items():
        values[name] = {"device": device}
        if device == "nvme":
            values[name]["nvme_path"] = NVME_PATH
    share = said.take("offload_share")
    if share and "offload_optimizer" in values:
        values["offload_optimizer"]["ratio"] = share
    for name, theirs in BUFFERS.items():
        if said.states(f"zero_buffers.{name}"):
            values[theirs] = said.take(f"zero_buffers.{name}")
    if layout.shard_size and layout.shard_size != layout.dp * layout.cp:
        raise ExportError(
            f"a DeepSpeed configuration says nothing of shard_size {layout.shard_size}; state the "
            "layout with implementation: fsdp2"
        )
    return values


def _tensor_parallel(layout: estimate_pb2.Layout) -> dict[str, Any]:
    """Tensor parallelism by DeepSpeed's AutoTP, which goes with stages up to 2."""
    for name in ("pp", "cp", "ep"):
        if getattr(layout, name) > 1:
            raise ExportError(
                f"a DeepSpeed configuration says nothing of {name} {getattr(layout, name)}; use "
                "torchrun and set it in the training code"
            )
    if layout.tp == 1:
        return {}
    if layout.zero > 2 or layout.sequence_parallel:
        what = "sequence_parallel" if layout.sequence_parallel else f"ZeRO-{layout.zero}"
        raise ExportError(f"DeepSpeed's tensor parallelism does not go with {what}")
    return {"tensor_parallel": {"autotp_size": layout.tp}}


def _refuse_left(said: Ledger) -> None:
    said.describes("dp", "zero", "tp", "pp", "cp", "ep", "offload", "implementation", "shard_size")
    said.describes("gradient_as_bucket_view")
    left = said.left()
    if left:
        raise ExportError(f"a DeepSpeed configuration says nothing of {'; '.join(left)}")
