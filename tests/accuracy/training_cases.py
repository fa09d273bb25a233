"""Maps published training runs, and runs known to fit or not."""

from __future__ import annotations

from typing import Any

from tests.accuracy.case import Case, Mapped, Unmapped, preset_source, word
from tests.accuracy.parallel_cases import is_megatron, layout_of, megatron_workload

from sizewright_server.estimation.workload import Optimizer, Training, Workload

PRECISIONS = {
    "fp32": "fp32",
    "bf16": "bf16",
    "fp16": "fp16",
    "bf16-mixed": "bf16-mixed",
    "fp16-mixed": "fp16-mixed",
    "amp_bf16": "bf16-mixed",
}
OPTIMIZERS = {"adamw": "adamw", "adam": "adam", "sgd": "sgd"}


def map_training(case: Case) -> Mapped:
    work = case["workload"]
    if is_megatron(work):
        workload = megatron_workload(work)
        return Mapped(workload, work.get("gpu"), min(int(work.get("gpus") or 8), 8))
    task = str(work.get("task"))
    if task not in ("full-finetune", "pretrain", "sft"):
        raise Unmapped(f"task {task!r} is not built yet")
    if work.get("lora"):
        raise Unmapped("adapters such as LoRA are not built yet")
    if work.get("compile"):
        raise Unmapped("torch.compile is not built yet")
    micro, tokens = work.get("micro_batch"), work.get("seq_len")
    if not micro or not tokens:
        raise Unmapped("micro batch or sequence length is not stated")
    checkpointing: Any = work.get("activation_checkpointing") or "none"
    if checkpointing not in ("none", "full"):
        raise Unmapped(f"activation checkpointing {checkpointing!r} is not built yet")
    run = Training(
        precision=word(PRECISIONS, work.get("precision"), "precision"),
        optimizer=Optimizer(_optimizer(work.get("optimizer"))),
        micro_batch=int(micro),
        seq_len=int(tokens),
        gradient_accumulation_steps=int(work.get("grad_accum") or 1),
        checkpointing=checkpointing,
        attention="eager" if work.get("attention") == "eager" else "sdpa",
        layout=layout_of(work),
    )
    gpus = run.layout.gpus if run.layout else 1
    return Mapped(Workload(preset_source(work), run), work.get("gpu"), min(gpus, 8))


def _optimizer(text: Any) -> Any:
    name = str(text or "").lower().replace("torch ", "").strip()
    return word(OPTIMIZERS, name, "optimizer")
