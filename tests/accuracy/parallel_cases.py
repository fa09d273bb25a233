"""Layouts of published multi-GPU runs, and Megatron-LM's runs.

What a framework does unless it is told otherwise is filled in here: DeepSpeed's, FSDP's and
Megatron-LM's defaults, and the recipe a source names.
"""

from __future__ import annotations

from typing import Any, cast, get_args

from tests.accuracy import training_words as words
from tests.accuracy.case import Case, Unmapped
from tests.accuracy.megatron_models import (
    TOY_LATENT_CHUNKS,
    TOY_LATENT_STAGES,
    TOY_LATENT_VOCABULARY_MULTIPLE,
    configuration,
    is_toy_latent,
)
from tests.accuracy.training_models import model_source

from sizewright_server.estimation.adapter_targets import adapter_targets
from sizewright_server.estimation.layout import (
    FsdpSettings,
    Layout,
    MegatronSettings,
    OffloadTarget,
    RecomputedModule,
    Sharding,
    ZeroBuffers,
)
from sizewright_server.estimation.techniques import Adapter
from sizewright_server.estimation.workload import (
    Attention,
    Checkpointing,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

OFFLOADS: dict[str, OffloadTarget] = {
    "none": "none",
    "cpu-optimizer": "optimizer",
    "cpu": "optimizer-and-parameters",
    "cpu-params+optimizer": "optimizer-and-parameters",
    "nvme": "nvme-with-parameters",
    "nvme-optimizer": "nvme",
}
SELECTED = "selective:["


def is_megatron(work: Case) -> bool:
    """Whether Megatron Core's own layers run (Megatron-LM, Megatron-SWIFT, Megatron-Bridge)."""
    framework = str(work.get("framework") or "").lower()
    return "megatron" in framework or ("nemo" in framework and "automodel" not in framework)


def layout_of(work: Case) -> Layout:
    """The layout a case states; sizes it leaves out are 1."""
    stated = work.get("parallelism") or {}
    sizes = {name: int(stated.get(name) or 1) for name in ("tp", "pp", "cp", "ep")}
    stage, library = _library(work, stated)
    others = sizes["tp"] * sizes["pp"] * sizes["cp"]
    ranks = int(work.get("gpus") or 1)
    dp = int(stated.get("dp") or max(1, ranks // others))
    settings = work.get("settings") or {}
    house = words.house_of(str(work.get("framework") or ""))
    virtual = _virtual_stages(work, sizes["pp"])
    return Layout(
        dp=dp,
        zero=stage,
        sharding=library,
        sequence_parallel=_sequence_parallel(work, stated, sizes["tp"]),
        keep_gathered="shard_grad_op" in str(stated.get("fsdp") or "").lower(),
        offload=_offload(stated, library),
        offload_activations=bool(settings.get("activation_offload")),
        offload_share=float(settings.get("optimizer_offload_fraction") or 1.0),
        virtual_stages=virtual,
        pipeline_schedule="gpipe" if settings.get("pipeline_schedule") == "GPipe" else "1f1b",
        context_method="ulysses" if "ulysses" in str(stated.get("cp_method")) else "ring",
        fsdp=FsdpSettings(
            use_orig_params=settings.get("use_orig_params", house.flat_originals or None),
            no_sync=house.no_sync,
            sync_module_states=bool(settings.get("low_memory_loading")),
        ),
        zero_buffers=_buffers(work),
        megatron=_megatron(work, settings),
        tp=sizes["tp"],
        pp=sizes["pp"],
        cp=sizes["cp"],
        ep=sizes["ep"],
    )


def _buffers(work: Case) -> ZeroBuffers:
    """Colossal-AI's low-level ZeRO reduces in buckets of 12 M elements, two with overlap
    (booster/plugin/low_level_zero_plugin.py)."""
    if "colossal" in str(work.get("framework") or "").lower():
        return ZeroBuffers(reduce_bucket_size=12 * 2**20, overlap_comm=True)
    return ZeroBuffers()


def _library(work: Case, stated: Case) -> tuple[int, Sharding]:
    framework = str(work.get("framework") or "").lower()
    stage = int(stated.get("zero_stage") or 0)
    units = str(stated.get("fsdp") or "").lower()
    if is_megatron(work):
        return min(stage, 1), "megatron"
    if units == "ddp":
        return 0, "ddp"
    if units or "fsdp" in framework:
        # Pipelines and experts compose with FSDP2 alone.
        composed = any(int(stated.get(name) or 1) > 1 for name in ("pp", "ep"))
        second = composed or "torchtitan" in framework or "fsdp2" in framework
        return 3, "fsdp2" if second else "fsdp1"
    if stage:
        return stage, "deepspeed"
    return 0, "ddp"


def _sequence_parallel(work: Case, stated: Case, tp: int) -> bool:
    """Stated; torchtitan's plan for tensor parallelism always has it."""
    titan = "torchtitan" in str(work.get("framework") or "").lower()
    settings = work.get("settings") or {}
    return tp > 1 and bool(titan or stated.get("sp") or settings.get("sequence_parallel"))


def _offload(stated: Case, library: Sharding) -> OffloadTarget:
    word = str(stated.get("offload") or "none").lower()
    if word == "activations":
        return "none"
    if word not in OFFLOADS:
        raise Unmapped(f"offload {word!r} is not known")
    found = OFFLOADS[word]
    if library.startswith("fsdp") and found != "none":
        return "optimizer-and-parameters"
    return found


def _virtual_stages(work: Case, pp: int) -> int:
    settings = work.get("settings") or {}
    arch = work.get("arch") or {}
    if is_toy_latent(work) and pp > 1:
        return TOY_LATENT_CHUNKS
    each = settings.get("layers_per_virtual_stage")
    if each and pp > 1:
        return max(1, int(arch["layers"]) // (pp * int(each)))
    return int(settings.get("virtual_pipeline_stages") or 1)


def _megatron(work: Case, settings: Case) -> MegatronSettings:
    local = str(settings.get("transformer_impl") or "") == "local"
    fused = settings.get("gradient_accumulation_fusion")
    toy: dict[str, Any] = {}
    if is_toy_latent(work):
        toy = {"vocab_multiple": TOY_LATENT_VOCABULARY_MULTIPLE, **TOY_LATENT_STAGES}
        # The test with further layers overlaps the experts' exchange, the one without does not.
        toy["overlaps_experts"] = bool(settings.get("mtp_layers"))
    return MegatronSettings(
        **toy,
        transformer_impl="local" if local else "transformer-engine",
        gradient_accumulation_fusion=fused is not False,
        fused_cross_entropy=bool(settings.get("loss_kernel")),
        recompute_modules=_recomputed(work),
        expert_tensor_parallel_size=int(settings.get("expert_tensor_parallel_size") or 0),
        precision_aware_optimizer=bool(settings.get("precision_aware_optimizer")),
    )


def megatron_workload(work: Case) -> Workload:
    """A Megatron-LM run: its arguments' defaults where the case states nothing.

    The data-parallel size has to be known: it says over how many ranks the optimizer is split.
    """
    micro, tokens = work.get("micro_batch"), work.get("seq_len")
    stated = work.get("parallelism") or {}
    if not micro or not tokens:
        raise Unmapped("micro batch or sequence length is not stated")
    if stated.get("zero_stage") and not stated.get("dp") and not work.get("gpus"):
        raise Unmapped("the number of GPUs is not stated, and with it the optimizer's shards")
    settings = work.get("settings") or {}
    attention: Attention = "eager" if work.get("attention") == "unfused" else "sdpa"
    run = Training(
        precision="bf16",
        optimizer=Optimizer(_optimizer(work)),
        micro_batch=int(micro),
        seq_len=int(tokens),
        gradient_accumulation_steps=int(work.get("grad_accum") or 1),
        checkpointing=_checkpointing(work),
        attention=attention,
        target_len=int(settings.get("decoder_seq_len") or 0),
        layout=layout_of(work),
        adapter=_adapter(work),
        multi_token_prediction_layers=int(settings.get("mtp_layers") or 0),
    )
    # A run of a published model may name it and no sizes.
    named = not (work.get("arch") or {}).get("hidden") and not is_toy_latent(work)
    source = model_source(work) if named else ModelSource(configuration(work), head=None)
    return Workload(source, run)


def _adapter(work: Case) -> Adapter | None:
    """Megatron-SWIFT's LoRA: in the model's own type, over every linear layer unless told."""
    lora = work.get("lora")
    if not lora:
        if work.get("peft_method") or "lora" in str(work.get("task")).lower():
            raise Unmapped("the adapter's rank is not stated")
        return None
    stated = lora.get("targets") or "all-linear"
    names = [stated] if isinstance(stated, str) else list(stated)
    return Adapter(
        "lora",
        int(lora["rank"]),
        adapter_targets(names, "lora"),
        dropout=float(lora.get("dropout") or 0.05),
        dtype="bf16",
    )


def _optimizer(work: Case) -> str:
    text = str(work.get("optimizer") or "").lower()
    for name in ("muon", "adam", "sgd"):
        if name in text:
            return "adamw" if name == "adam" else name
    raise Unmapped(f"optimizer {text!r} is not known")


def _checkpointing(work: Case) -> Checkpointing:
    text = str(work.get("activation_checkpointing") or "none")
    if text in ("none", "full"):
        return "full" if text == "full" else "none"
    if text == "selective" or text.startswith(SELECTED):
        return "selective"
    raise Unmapped(f"recomputation of {text!r} is not known")


def _recomputed(work: Case) -> tuple[RecomputedModule, ...]:
    """Modules of `selective:[layernorm mlp]`."""
    text = str(work.get("activation_checkpointing") or "none")
    if not text.startswith(SELECTED):
        return ()
    names = text.removeprefix(SELECTED).rstrip("]").split()
    unknown = [name for name in names if name not in get_args(RecomputedModule)]
    if unknown:
        raise Unmapped(f"recomputation of {unknown} is not known")
    return tuple(cast("RecomputedModule", name) for name in names)
