"""Maps a ground-truth case to a workload. Reads `workload` and the targets' kind alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sizewright_server.estimation.presets import UnknownPreset, find_preset
from sizewright_server.estimation.workload import (
    Inference,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

Case = dict[str, Any]


class Unmapped(Exception):
    """A case that cannot be mapped, and why."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A workload, the GPU it ran on where that is stated, and its ranks per node."""

    workload: Workload
    device: str | None
    ranks_per_node: int


def map_case(case: Case) -> Mapped:
    """The workload of a case. Raises Unmapped with the reason."""
    mapper = {
        "trace": _trace,
        "training": _training,
        "fits": _training,
        "serving": _serving,
    }.get(case["kind"])
    if mapper is None:
        raise Unmapped(f"{case['kind']}: {_category(case)} jobs are not built yet")
    return mapper(case)


def _category(case: Case) -> str:
    return str(case.get("category") or case["workload"].get("category"))


# -- traces -------------------------------------------------------------------------------------

TRACE_OPTIMIZERS: dict[str, Any] = {"sgd_momentum": "sgd-momentum"}
TRACE_STEPS: dict[str, Any] = {"forloop": "for-loop"}
TRACE_HEADS: dict[str, Any] = {"seqcls": "sequence-classification"}


def _trace(case: Case) -> Mapped:
    work = case["workload"]
    if work.get("lora"):
        raise Unmapped("adapters such as LoRA are not built yet")
    if not work.get("model_config"):
        raise Unmapped("the model has no Hugging Face configuration")
    source = ModelSource(work["model_config"], head=TRACE_HEADS.get(work.get("head", "")))
    run = _trace_training(work) if work["mode"] == "train" else _trace_inference(work)
    layout = run.layout or Layout()
    return Mapped(Workload(source, run), None, min(layout.gpus, 8))


def _trace_training(work: Case) -> Training:
    spread = work.get("dist") or {}
    precision: Any = f"{work['amp']}-mixed" if work.get("amp") else work["param_dtype"]
    half = spread.get("mp") == "bf16"
    if half and precision == "fp32":
        precision = "bf16-mixed"
    return Training(
        precision=precision,
        optimizer=Optimizer(
            *_trace_optimizer(work["optimizer"], work["opt_impl"]),
        ),
        micro_batch=work["batch"],
        seq_len=work.get("seq") or 1,
        gradient_accumulation_steps=work.get("grad_accum") or 1,
        checkpointing="full" if work.get("grad_ckpt") else "none",
        attention=work.get("attn") or "sdpa",
        padded_batches=bool(work.get("padded_mask")),
        image_size=work.get("image"),
        gradient_reduce_dtype="fp32" if half else None,
        layout=_trace_layout(spread),
    )


def _trace_optimizer(name: str, step: str) -> tuple[Any, Any]:
    return TRACE_OPTIMIZERS.get(name, name), TRACE_STEPS.get(step, step)


def _trace_layout(spread: Case) -> Layout:
    world = spread.get("world", 1)
    kind = spread.get("kind")
    if kind == "fsdp2":
        keep = not spread.get("reshard", True)
        return Layout(dp=world, zero=3, sharding="fsdp2", keep_gathered=keep)
    if kind == "tp":
        return Layout(tp=world)
    if kind in (None, "ddp"):
        return Layout(dp=world)
    raise Unmapped(f"distribution {kind!r} is not built yet")


def _trace_inference(work: Case) -> Inference:
    decode = work.get("decode") or 0
    cache: Any = work.get("cache") or ("dynamic" if decode else "none")
    if cache not in ("dynamic", "static", "none"):
        raise Unmapped(f"cache {cache!r} is not built yet")
    dtype = work["param_dtype"]
    return Inference(
        engine="transformers",
        weight_dtype=dtype,
        kv_dtype=dtype,
        batch=work["batch"],
        input_tokens=work.get("seq") or 1,
        new_tokens=(work.get("max_new_tokens") or decode) if cache == "static" else decode,
        cache=cache,
        logits_to_keep=work.get("logits_to_keep", 1 if decode else 0),
        attention=work.get("attn") or "sdpa",
        padded_batches=bool(work.get("padded_mask")),
        image_size=work.get("image"),
        layout=Layout(),
    )


# -- published runs -----------------------------------------------------------------------------

PRECISIONS = {
    "fp32": "fp32",
    "bf16": "bf16",
    "fp16": "fp16",
    "bf16-mixed": "bf16-mixed",
    "fp16-mixed": "fp16-mixed",
    "amp_bf16": "bf16-mixed",
}
OPTIMIZERS = {"adamw": "adamw", "adam": "adam", "sgd": "sgd"}


def _training(case: Case) -> Mapped:
    work = case["workload"]
    task = str(work.get("task"))
    if task not in ("full-finetune", "pretrain", "sft"):
        raise Unmapped(f"task {task!r} is not built yet")
    if work.get("lora"):
        raise Unmapped("adapters such as LoRA are not built yet")
    if work.get("compile"):
        raise Unmapped("torch.compile is not built yet")
    parallel = work.get("parallelism") or {}
    _refuse_parallelism(parallel)
    micro, tokens = work.get("micro_batch"), work.get("seq_len")
    if not micro or not tokens:
        raise Unmapped("micro batch or sequence length is not stated")
    checkpointing: Any = work.get("activation_checkpointing") or "none"
    if checkpointing not in ("none", "full"):
        raise Unmapped(f"activation checkpointing {checkpointing!r} is not built yet")
    run = Training(
        precision=_word(PRECISIONS, work.get("precision"), "precision"),
        optimizer=Optimizer(_optimizer(work.get("optimizer"))),
        micro_batch=int(micro),
        seq_len=int(tokens),
        gradient_accumulation_steps=int(work.get("grad_accum") or 1),
        checkpointing=checkpointing,
        attention="eager" if work.get("attention") == "eager" else "sdpa",
        layout=_layout(work, parallel),
    )
    gpus = run.layout.gpus if run.layout else 1
    return Mapped(Workload(_source(work), run), work.get("gpu"), min(gpus, 8))


def _refuse_parallelism(parallel: Case) -> None:
    for name, words in (("pp", "pipeline"), ("cp", "context"), ("ep", "expert")):
        if (parallel.get(name) or 1) > 1:
            raise Unmapped(f"{words} parallelism is not built yet")
    if (parallel.get("offload") or "none") != "none":
        raise Unmapped("offload is not built yet")


def _layout(work: Case, parallel: Case) -> Layout:
    framework = str(work.get("framework") or "").lower()
    if "megatron" in framework:
        raise Unmapped("Megatron's states and kernels are not built yet")
    dp, tp = int(parallel.get("dp") or 1), int(parallel.get("tp") or 1)
    stage = int(parallel.get("zero_stage") or 0)
    if parallel.get("fsdp"):
        return Layout(dp=dp, tp=tp, zero=3, sharding="fsdp2")
    if stage:
        return Layout(dp=dp, tp=tp, zero=stage, sharding="deepspeed")
    return Layout(dp=dp, tp=tp)


def _optimizer(text: Any) -> Any:
    name = str(text or "").lower().replace("torch ", "").strip()
    return _word(OPTIMIZERS, name, "optimizer")


def _word(table: dict[str, str], value: Any, kind: str) -> Any:
    if value not in table:
        raise Unmapped(f"{kind} {value!r} is not built yet")
    return table[value]


def _source(work: Case) -> ModelSource:
    """A preset of the model's name, with the stated sizes where they differ."""
    name = str(work.get("model"))
    try:
        preset = find_preset(name)
    except UnknownPreset as unknown:
        raise Unmapped(f"model {name!r} is no preset") from unknown
    return ModelSource(preset.config, preset=preset.name)


# -- serving ------------------------------------------------------------------------------------


def _serving(case: Case) -> Mapped:
    work = case["workload"]
    if work.get("engine") != "transformers":
        raise Unmapped(f"engine {work.get('engine')!r} is not built yet")
    dtype = work.get("weight_dtype")
    if dtype not in ("fp32", "bf16", "fp16"):
        raise Unmapped(f"weights of {dtype!r} are not built yet")
    if (work.get("gpus") or 1) > 1:
        raise Unmapped("a model split over GPUs by device map is not built yet")
    settings = work.get("settings") or {}
    prompt, new = settings.get("input_tokens"), settings.get("new_tokens") or 0
    if not prompt:
        raise Unmapped("the prompt's length is not stated")
    run = Inference(
        engine="transformers",
        weight_dtype=dtype,
        kv_dtype=dtype,
        batch=int(work.get("batch") or 1),
        input_tokens=int(prompt),
        new_tokens=int(new),
        cache="dynamic" if new else "none",
        logits_to_keep=1 if new else 0,
        layout=Layout(),
    )
    return Mapped(Workload(_source(work), run), work.get("gpu"), 1)
