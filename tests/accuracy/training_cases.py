"""Maps published training runs, and runs known to fit or not."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from tests.accuracy import training_words as words
from tests.accuracy.case import Case, Mapped, Unmapped
from tests.accuracy.parallel_cases import is_megatron, layout_of, megatron_workload
from tests.accuracy.training_models import model_source
from tests.accuracy.training_words import House

from sizewright_server.estimation import gated_prompts
from sizewright_server.estimation.adapter_targets import (
    PROMPT_METHODS,
    UnknownTarget,
    adapter_targets,
    default_rank,
    trained_modules,
)
from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.techniques import (
    Adapter,
    AdapterMethod,
    BaseWeights,
    CheckpointPolicy,
    FloatType,
    LossKernel,
)
from sizewright_server.estimation.workload import Layout, Training, Workload

VARIABLE = ("padded_to_longest", "truncated_at_max_length", "length_bucketed_padded_to_longest")
#: Tokens of a prompt before the others, and of a block's own.
VIRTUAL_TOKENS, BLOCK_PROMPT = 20, 10
#: bitsandbytes' formats, made of linear layers as a model loads.
KBIT = ("nf4", "fp4", "int8")
#: The stage from which on weights are sharded.
SHARDED = 3
#: Families whose experts are one parameter in every release of transformers.
FUSED_EXPERTS = ("dbrx", "gpt_oss", "granitemoe", "llama4_text")
LOSSES: dict[str, LossKernel] = {
    "cut_cross_entropy": "cut",
    "fused_linear_ce": "fused-linear",
    "fused_ce": "fused",
    "full": "full",
    "chunked": "chunked",
    "chunked_ce": "chunked",
}


def map_training(case: Case) -> Mapped:
    """The workload of a training or fits case. Raises Unmapped with the reason."""
    work = case["workload"]
    if is_megatron(work):
        workload = megatron_workload(work)
        return Mapped(workload, work.get("gpu"), min(int(work.get("gpus") or 8), 8))
    settings = work.get("settings") or {}
    house = words.house_of(str(work.get("framework") or ""))
    micro, tokens = work.get("micro_batch"), _tokens(work, settings)
    if not micro or not tokens:
        raise Unmapped("micro batch or sequence length is not stated")
    words.check_task(str(work.get("task")))
    adapter = _adapter(work, settings, house)
    run = _training(work, settings, house, adapter, int(micro), tokens)
    source = model_source(work)
    run = _with_stated_count(Workload(source, run), run, settings)
    gpus = run.layout.gpus if run.layout else 1
    return Mapped(Workload(source, run), work.get("gpu"), min(gpus, 8))


def _training(
    work: Case, settings: Case, house: House, adapter: Adapter | None, micro: int, tokens: int
) -> Training:
    checkpoints, offload = words.checkpointing(_stated_checkpointing(work, house))
    variable = settings.get("sequence_policy") in VARIABLE
    attention = words.attention(work.get("attention"))
    masked = variable and micro > 1 and house.masks_padding
    whole = str(work.get("precision") or "bf16")
    text = f"{whole} {work.get('task')}"
    return Training(
        precision=_adapter_precision(text, house) if adapter else words.precision(whole, settings),
        optimizer=words.optimizer(work.get("optimizer"), settings, house),
        micro_batch=micro,
        seq_len=tokens,
        gradient_accumulation_steps=_micro_batches(work),
        checkpointing=checkpoints,
        checkpoint_policy=CheckpointPolicy(offload=offload),
        attention=attention,
        padded_batches=masked,
        variable_lengths=variable if settings.get("sequence_policy") else None,
        # litgpt's recipes of 2023, which take the data set's own lengths, put the longest first.
        longest_batch_first=house.code == "litgpt" and bool(settings.get("global_batch")),
        # A cache that is emptied every few steps holds little more than one step needs.
        expandable_segments=bool(
            settings.get("expandable_segments") or settings.get("empty_cache_every_steps")
        ),
        modeling_code=house.code,
        loop=house.loop,
        preference=words.preference(str(work.get("task")), house, adapts=adapter is not None),
        kernels=replace(
            house.kernels,
            loss=_loss(work, settings) or house.kernels.loss,
            compile="blocks" if work.get("compile") else "none",
        ),
        adapter=adapter,
        base_weights=_base(work, settings, house) if adapter else None,
        layout=_layout(work),
        packed=settings.get("sequence_policy") == "packed",
        seq_len_is_limit=bool(settings.get("seq_len_is_cap")),
    )


def _loss(work: Case, settings: Case) -> LossKernel | None:
    """The loss a run names; torchtitan compiles its own with the blocks since April 2025.

    Its version is told by what only later ones have: options to recompute fp8 weights and to leave
    layers in bf16, formats of four and of scaled eight bits. Where nothing tells it the loss is
    taken as not compiled, the dearer of the two.
    """
    stated = LOSSES.get(str(settings.get("loss_kernel")))
    titan = "torchtitan" in str(work.get("framework") or "")
    options = ("fp8_recompute_weight_in_backward", "layers_kept_in_bf16")
    later = any(map(settings.get, options)) or work.get("precision") in ("mxfp8", "nvfp4")
    return "compiled" if titan and work.get("compile") and later and not stated else stated


def _micro_batches(work: Case) -> int:
    """Stated, or enough to fill a pipeline."""
    stages = (work.get("parallelism") or {}).get("pp") or 1
    return int(work.get("grad_accum") or stages)


def _tokens(work: Case, settings: Case) -> int:
    stated = settings.get("longest_sample_tokens") or work.get("seq_len")
    return int(stated or settings.get("max_length") or 0)


# -- adapters -----------------------------------------------------------------------------------


def _adapter(work: Case, settings: Case, house: House) -> Adapter | None:
    """The adapter, from its own fields or from the words of the task."""
    lora, task = work.get("lora") or {}, str(work.get("task") or "").lower()
    named = str(work.get("peft_method") or task.removeprefix("peft-"))
    named_so = task.startswith(("peft-", "adapter", "llama-adapter"))
    named_so = named_so or words.method_of(task) is not None
    if not (lora or work.get("peft_method") or "lora" in task or named_so):
        whole = ("full", "full-finetune", "pretrain", "sft", "galore", *words.METHODS_OF_PAIRS)
        if task.split()[:1] and task.split()[0] in whole:
            return None
        raise Unmapped(f"task {task!r} is not built yet")
    method = _method(named, settings)
    try:
        targets = adapter_targets(_target_names(lora, settings, task), method)
        modules = trained_modules(
            [n for n in ("embeddings", "head") if settings.get(f"{n}_trained")], method
        )
    except UnknownTarget as unknown:
        raise Unmapped(f"adapter target {unknown.name!r} is not known") from unknown
    rank = lora.get("rank") or _number(r"r(?:ank)?\s?(\d+)", task) or default_rank(method)
    dtype: FloatType = settings.get("adapter_dtype") or house.adapter_type
    dropout = settings.get("lora_dropout", house.adapter_dropout)
    tokens = BLOCK_PROMPT if method in gated_prompts.METHODS else VIRTUAL_TOKENS
    return Adapter(method, int(rank), targets, dropout, dtype, modules, tokens)


def _method(named: str, settings: Case) -> AdapterMethod:
    if settings.get("use_dora"):
        return "dora"
    found = words.method_of(named)
    if found is None:
        raise Unmapped(f"adapter {named!r} is not built yet")
    return found


def _target_names(lora: Case, settings: Case, task: str) -> list[str]:
    if " all" in task:
        return ["all-linear", "head"]
    names = settings.get("lora_targets") or str(lora.get("targets") or "").split(",")
    return [name.strip() for name in names if name and name.strip() not in ("default", "DEFAULT")]


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


def _adapter_precision(text: str, house: House) -> Any:
    """Mixed where the run or its library says so."""
    half = "fp16" if "fp16" in text.lower() else "bf16"
    mixed = house.adapter_mixed or "mixed" in text.lower() or "amp" in re.split(r"\W|_", text)
    return f"{half}-mixed" if mixed else half


def _stated_checkpointing(work: Case, house: House) -> Any:
    """Stated, or a library's own habit: PEFT's prepare_model_for_kbit_training turns it on."""
    stated = work.get("activation_checkpointing")
    if stated is None and house.upcasts_kbit and _bitsandbytes(work):
        return "full"
    return stated or house.checkpointing


def _bitsandbytes(work: Case) -> bool:
    """Whether bitsandbytes quantises the frozen weights."""
    return words.quantized_format(f"{work.get('precision')} {work.get('task')}") in KBIT


def _base(work: Case, settings: Case, house: House) -> BaseWeights:
    """Quantised, or 16-bit as checkpoints are.

    What is sharded has one type throughout: nothing of it is upcast (TRL, `is_sharded_qlora`).
    """
    text = f"{work.get('precision') or 'bf16'} {work.get('task')}"
    layout = _layout(work)
    whole = layout.zero < SHARDED or layout.gpus == 1
    quantized = words.quantized_format(text)
    if quantized is None:
        half = "fp16" if "fp16" in text.lower() else settings.get("param_dtype", "bf16")
        return BaseWeights(half)
    double = settings.get("double_quant", quantized == "nf4")
    bnb = quantized in KBIT
    return BaseWeights(
        quantized,
        double_quantization=bool(double) and quantized in ("nf4", "fp4"),
        upcast_others=house.upcasts_kbit and bnb and whole,
        quantized_head=house.code == "litgpt",
        keeps_inputs=house.old_bnb and bnb,
        quantized_experts=bnb and _quantizes_experts(work, settings, house),
    )


def _quantizes_experts(work: Case, settings: Case, house: House) -> bool:
    """Experts that are linear layers of their own, as in transformers before 5, or said to be."""
    if settings.get("experts_dtype"):
        return False
    if settings.get("experts_quantised") or house.quantizes_experts:
        return True
    return model_source(work).config.get("model_type") not in FUSED_EXPERTS


def _with_stated_count(workload: Workload, run: Training, settings: Case) -> Training:
    """The rank, or the count of virtual tokens, that gives the stated trained parameters."""
    stated = settings.get("trainable_params")
    if run.adapter is None or not stated or run.adapter.method in gated_prompts.METHODS:
        return run
    prepared = prepare(workload)
    adapter, own = run.adapter, prepared.trainable_parameter_count
    if adapter.method in PROMPT_METHODS:
        tokens = round(adapter.virtual_tokens * stated / own)
        return replace(run, adapter=replace(adapter, virtual_tokens=max(1, tokens)))
    rank = round(adapter.rank * stated / own) if own else adapter.rank
    if adapter.method in ("ia3", "layernorm-tuning", "boft", "oft") or rank < 1:
        return run
    return replace(run, adapter=replace(adapter, rank=rank))


def _layout(work: Case) -> Layout:
    """The stated layout; words of the task may say that FSDP shards."""
    if not work.get("parallelism") and "fsdp" in str(work.get("task")).lower():
        return layout_of({**work, "parallelism": {"fsdp": "full_shard"}})
    if not work.get("parallelism") and int(work.get("gpus") or 1) > 1 and work.get("framework"):
        sharded = words.house_of(str(work["framework"])).shards
        return layout_of({**work, "parallelism": {"fsdp": sharded}})
    return layout_of(work)
