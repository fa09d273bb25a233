"""Forms that start the layout itself, so that the run is the one that was estimated."""

from __future__ import annotations

import json
import shlex
from typing import Any

import yaml

from sizewright.v1 import estimate_pb2, workload_pb2
from sizewright_client.export.selection import ExportError, Selection

#: How the libraries call our precisions: torch autocast, and a whole model of one type.
MIXED = {"bf16-mixed": "bf16", "fp16-mixed": "fp16"}


def torchrun(selection: Selection) -> str:
    """A `torchrun` command with the plan's nodes and ranks."""
    nodes = selection.plan.node_count
    work = selection.workload
    expandable = work.WhichOneof("run") == "training" and work.training.expandable_segments
    words = ["PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"] if expandable else []
    words += ["torchrun", f"--nnodes={nodes}", f"--nproc-per-node={_ranks(selection)}"]
    if nodes > 1:
        words += ["--rdzv-backend=c10d", "--rdzv-endpoint=$HEAD_NODE:29500"]
    else:
        words += ["--standalone"]
    return " ".join([*words, "train.py"]) + "\n"


def accelerate(selection: Selection) -> str:
    """A configuration of Hugging Face accelerate (`accelerate launch --config_file`)."""
    run, layout, nodes = _training(selection), selection.plan.layout, selection.plan.node_count
    _data_parallel_only(selection, "accelerate's configuration")
    values: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "num_machines": nodes,
        "num_processes": layout.gpus,
        "machine_rank": 0,
        "main_training_function": "main",
        "mixed_precision": MIXED.get(run.precision, "no"),
        "use_cpu": False,
        "distributed_type": "NO" if layout.gpus == 1 else "MULTI_GPU",
    }
    if layout.implementation.startswith("fsdp") and layout.zero:
        values["distributed_type"] = "FSDP"
        values["fsdp_config"] = {
            "fsdp_version": 2 if layout.implementation == "fsdp2" else 1,
            **_resharding(layout),
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_activation_checkpointing": _checkpoints(run),
        }
    elif layout.implementation == "deepspeed" and layout.zero:
        values["distributed_type"] = "DEEPSPEED"
        values["deepspeed_config"] = {
            "zero_stage": layout.zero,
            "gradient_accumulation_steps": max(run.gradient_accumulation_steps, 1),
            **_accelerate_offload(layout),
        }
    text: str = yaml.safe_dump(values, sort_keys=False)
    return text


def deepspeed(selection: Selection) -> str:
    """A DeepSpeed configuration (`ds_config.json`)."""
    run, layout = _training(selection), selection.plan.layout
    if layout.implementation != "deepspeed" and layout.zero:
        raise ExportError(
            f"the plan shards with {layout.implementation}, not with DeepSpeed; "
            "state the layout with implementation: deepspeed"
        )
    _data_parallel_only(selection, "a DeepSpeed configuration")
    steps = max(run.gradient_accumulation_steps, 1)
    values: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": run.micro_batch,
        "gradient_accumulation_steps": steps,
        "train_batch_size": run.micro_batch * steps * layout.dp,
        "zero_optimization": {"stage": layout.zero, **_deepspeed_offload(layout)},
    }
    kind = run.precision.removesuffix("-mixed")
    if kind in ("bf16", "fp16"):
        values[kind] = {"enabled": True}
    return json.dumps(values, indent=2) + "\n"


def vllm(selection: Selection) -> str:
    """A `vllm serve` command."""
    work = selection.workload
    if work.WhichOneof("run") != "inference":
        raise ExportError("vllm serves; the workload trains")
    run, layout = work.inference, selection.plan.layout
    serving = run.serving
    length = serving.max_model_len or run.input_tokens + run.new_tokens
    words = ["vllm", "serve", _model(work), f"--tensor-parallel-size={layout.tp}"]
    if layout.pp > 1:
        words.append(f"--pipeline-parallel-size={layout.pp}")
    if layout.dp > 1:
        words.append(f"--data-parallel-size={layout.dp}")
    words += [f"--max-model-len={length}"]
    words += [f"--max-num-seqs={serving.max_num_seqs or run.batch}"]
    if serving.gpu_memory_utilization:
        words.append(f"--gpu-memory-utilization={serving.gpu_memory_utilization:g}")
    if serving.max_num_batched_tokens:
        words.append(f"--max-num-batched-tokens={serving.max_num_batched_tokens}")
    words += _number_types(run)
    if serving.enforce_eager:
        words.append("--enforce-eager")
    return " \\\n  ".join(shlex.quote(word) for word in words) + "\n"


#: Formats of weights that vLLM makes as it loads 16-bit ones; the others are stored so.
QUANTIZED_ON_LOAD = ("fp8",)
TORCH_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def _number_types(run: workload_pb2.Inference) -> list[str]:
    words = []
    if run.weight_dtype in TORCH_NAMES:
        words.append(f"--dtype={TORCH_NAMES[run.weight_dtype]}")
    elif run.weight_dtype in QUANTIZED_ON_LOAD:
        words.append(f"--quantization={run.weight_dtype}")
    if run.kv_dtype.startswith("fp8"):
        words.append("--kv-cache-dtype=fp8")
    return words


def _resharding(layout: estimate_pb2.Layout) -> dict[str, Any]:
    """FSDP2 takes a flag; FSDP1 a strategy, by name."""
    keeps = layout.keep_gathered_after_forward or layout.zero < 3
    if layout.implementation == "fsdp2":
        return {"fsdp_reshard_after_forward": not keeps}
    return {"fsdp_sharding_strategy": "SHARD_GRAD_OP" if keeps else "FULL_SHARD"}


#: Where DeepSpeed puts the optimizer and the parameters: `device`s of its two offloads.
OFFLOADED = {
    "optimizer": ("cpu", None),
    "optimizer-and-parameters": ("cpu", "cpu"),
    "nvme": ("nvme", None),
    "nvme-with-parameters": ("nvme", "nvme"),
}
#: Where the files of an offload to NVMe go; replace it by your own.
NVME_PATH = "/local_nvme"


def _offloads(layout: estimate_pb2.Layout) -> dict[str, str]:
    names = ("offload_optimizer", "offload_param")
    devices = OFFLOADED.get(layout.offload, (None, None))
    return {name: device for name, device in zip(names, devices, strict=True) if device}


def _deepspeed_offload(layout: estimate_pb2.Layout) -> dict[str, Any]:
    return {
        name: {"device": device, **({"nvme_path": NVME_PATH} if device == "nvme" else {})}
        for name, device in _offloads(layout).items()
    }


def _accelerate_offload(layout: estimate_pb2.Layout) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, device in _offloads(layout).items():
        made[f"{name}_device"] = device
        if device == "nvme":
            made[f"{name}_nvme_path"] = NVME_PATH
    return made


def _training(selection: Selection) -> workload_pb2.Training:
    if selection.workload.WhichOneof("run") != "training":
        raise ExportError("this form starts a training run; the workload does not train")
    return selection.workload.training


def _ranks(selection: Selection) -> int:
    return max(selection.gpus_per_node, 1)


def _checkpoints(run: workload_pb2.Training) -> bool:
    return run.activation_checkpointing == workload_pb2.ACTIVATION_CHECKPOINTING_FULL


def _data_parallel_only(selection: Selection, what: str) -> None:
    layout = selection.plan.layout
    for name in ("tp", "pp", "cp", "ep"):
        if getattr(layout, name) > 1:
            raise ExportError(
                f"{what} says nothing of {name} {getattr(layout, name)}; use torchrun and set it "
                "in the training code"
            )


def _model(work: workload_pb2.Workload) -> str:
    if work.model.WhichOneof("source") == "preset":
        return work.model.preset
    return "path/to/model"
