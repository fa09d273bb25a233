"""Maps traces of real model code."""

from __future__ import annotations

from typing import Any

from tests.accuracy.case import Case, Mapped, Unmapped

from sizewright_server.estimation.adapter_targets import adapter_targets, trained_modules
from sizewright_server.estimation.techniques import (
    Adapter,
    BaseWeights,
    Kernels,
    LossKernel,
    Preference,
)
from sizewright_server.estimation.workload import (
    Inference,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

TRACE_OPTIMIZERS: dict[str, Any] = {"sgd_momentum": "sgd-momentum"}
TRACE_STEPS: dict[str, Any] = {"forloop": "for-loop"}
#: Methods and ranks by PEFT's own names, and modules that are trained whole by the model's.
TRACE_METHODS: dict[str, Any] = {
    "ln_tuning": "layernorm-tuning",
    "prompt_tuning": "prompt-tuning",
    "prefix_tuning": "prefix-tuning",
    "p_tuning": "p-tuning",
}
RANK_KEYS = {"adalora": "init_r", "boft": "boft_block_size", "oft": "oft_block_size"}
MODULE_NAMES = {"input_layernorm": "norms", "post_attention_layernorm": "norms"}
TRACE_HEADS: dict[str, Any] = {"seqcls": "sequence-classification"}


def map_trace(case: Case) -> Mapped:
    work = case["workload"]
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
        target_len=work.get("target_seq") or 0,
        # A build of torch without CUDA kernels decomposes what has none.
        traced="+cpu" in (work.get("versions") or {}).get("torch", "+cpu"),
        # Nor are the packages of recurrent layers' kernels there, unless a row says so.
        kernels=_trace_kernels(work.get("liger") or {}, work.get("recurrence") or "eager"),
        gradient_reduce_dtype="fp32" if half else None,
        layout=_trace_layout(spread),
        adapter=_trace_adapter(work.get("lora")),
        preference=Preference("dpo", work["ref"]) if work.get("preference") else None,
        base_weights=BaseWeights(work["param_dtype"]) if work.get("lora") else None,
    )


def _trace_kernels(liger: Case, recurrence: Any) -> Kernels:
    """Liger's kernels by the switches that turn them on."""
    loss: LossKernel | None = "fused-fp32" if liger.get("cross_entropy") else None
    return Kernels(
        loss="fused-linear" if liger.get("fused_linear_cross_entropy") else loss,
        norm="fused" if liger.get("rms_norm") else None,
        mlp="fused" if liger.get("swiglu") else None,
        rope="fused" if liger.get("rope") else None,
        recurrence=recurrence,
    )


def _trace_adapter(lora: Case | None) -> Adapter | None:
    """PEFT's method and the settings of its configuration class, as `measure/models.py` has them.

    The rank is the block's side where rotations are trained.
    """
    if not lora:
        return None
    options: Case = lora.get("options", {})
    stated: str = lora.get("method", "lora")
    method: Any = TRACE_METHODS.get(stated, stated)
    for key, variant in (("use_dora", "dora"), ("use_rslora", "rslora")):
        method = variant if options.get(key) else method
    names: list[str] = lora.get("targets") or options.get("target_modules") or []
    modules = [MODULE_NAMES.get(name, name) for name in options.get("modules_to_save", ())]
    dropout: Any = lora.get("dropout", options.get("vera_dropout", 0.0))
    return Adapter(
        method,
        options.get(RANK_KEYS.get(method, "r")) or lora.get("r") or 8,
        adapter_targets(names, method),
        dropout=dropout if "method" in lora else lora.get("dropout", 0.05),
        trained_modules=trained_modules(modules, method),
        virtual_tokens=options.get("num_virtual_tokens", 20),
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
    # Without a word about it, a decoder's forward pass makes a cache.
    cache: Any = work.get("cache") or "dynamic"
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
        target_tokens=work.get("target_seq") or 1,
        traced=True,
        recurrence=work.get("recurrence") or "eager",
        layout=Layout(),
    )
