"""Words of published runs, and the project's words for them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.accuracy.case import Unmapped

from sizewright_server.estimation.optimizers import optimizers
from sizewright_server.estimation.techniques import (
    AdapterMethod,
    FloatType,
    Kernels,
    ModelingCode,
    Preference,
    PreferenceMethod,
    TrainingLoop,
)
from sizewright_server.estimation.workload import Attention, Checkpointing, Optimizer, Precision


@dataclass(frozen=True, slots=True)
class House:
    """What a framework's training recipes do unless a run says otherwise.

    `adapter_type` and `adapter_mixed`: the type of an adapter's weights, and autocast around it.
    """

    code: ModelingCode = "transformers"
    loop: TrainingLoop = "plain"
    adapter_type: FloatType = "fp32"
    adapter_mixed: bool = False
    adapter_dropout: float = 0.0
    masks_padding: bool = True
    upcasts_kbit: bool = False
    paged_with_bnb: bool = False
    #: bitsandbytes of before 0.44, whose 4-bit layers keep their inputs; the head is one of them.
    old_bnb: bool = False
    #: How its multi-GPU recipes shard where a run does not say.
    shards: str = ""
    #: FSDP1 keeps the original parameters, and gradients whole until the last micro-batch.
    flat_originals: bool = False
    no_sync: bool = False
    #: What is recomputed where a run does not say.
    checkpointing: str = "none"
    #: Preference tuning keeps a second model whatever is trained.
    second_model: bool = False
    #: Experts are quantised whatever the family.
    quantizes_experts: bool = False
    #: Kernels its models run with.
    kernels: Kernels = field(default_factory=Kernels)


TRAINER = House(
    loop="trainer",
    adapter_mixed=True,
    adapter_dropout=0.05,
    upcasts_kbit=True,
    # accelerate's accumulate() and the Trainer leave gradients unreduced but for the last.
    no_sync=True,
)
HOUSES: tuple[tuple[str, House], ...] = (
    (
        "litgpt",
        House(
            code="litgpt",
            loop="fabric",
            adapter_type="bf16",
            adapter_dropout=0.05,
            masks_padding=False,
            paged_with_bnb=True,
            old_bnb=True,
            shards="full_shard",
            flat_originals=True,
            no_sync=True,
        ),
    ),
    ("composer", House(code="llm-foundry", masks_padding=False)),
    ("llm-foundry", House(code="llm-foundry", masks_padding=False)),
    ("mosaic", House(code="llm-foundry", masks_padding=False)),
    ("fsdp_qlora", House("transformers-4.45", adapter_type="bf16", adapter_dropout=0.1)),
    # train.py deletes the logits before the backward pass; its configurations of Llama and Qwen
    # recompute selectively (activation_checkpoint.mode).
    ("torchtitan", House(loop="trainer", checkpointing="selective")),
    # Its own Triton kernels (unsloth/kernels): norms, SwiGLU, rotary embedding, cross entropy.
    (
        "unsloth",
        House(
            loop="trainer",
            adapter_mixed=True,
            quantizes_experts=True,
            kernels=Kernels(loss="fused", norm="fused", mlp="fused", rope="fused"),
        ),
    ),
    # ColossalChat pins transformers 4.39 and keeps a model's outputs to the end of the step.
    ("colossal", House("transformers-4.45", second_model=True)),
    # Frees the logits before the backward pass, and adapts in the weights' own type.
    ("torchtune", House(loop="trainer", adapter_type="bf16")),
    ("swift", TRAINER),
    ("llama-factory", TRAINER),
    ("llamafactory", TRAINER),
    ("xtuner", TRAINER),
    ("axolotl", TRAINER),
    ("transformers", TRAINER),
    ("accelerate", TRAINER),
    ("trl", TRAINER),
)

#: Optimizers by a pattern in the source's words; the first that matches counts.
OPTIMIZERS: tuple[tuple[str, str], ...] = (
    (r"lora-?fa", "lora-fa"),
    (r"galore.*8.?bit", "galore-adamw-8bit"),
    (r"galore", "galore-adamw"),
    (r"lisa", ""),
    (r"decoupled.?adamw", "decoupled-adamw"),
    (r"paged.*8.?bit", "paged-adamw-8bit"),
    (r"paged", "paged-adamw"),
    (r"torch(ao)?.?8.?bit|adamw8bit.*ao|low.?bit", "adamw-8bit-ao"),
    (r"4.?bit", "adamw-4bit"),
    (r"adamw.*8.?bit|8.?bit.*adamw", "adamw-8bit"),
    (r"adam.*8.?bit|8.?bit.*adam", "adam-8bit"),
    (r"adamw.*bnb|bnb.*adamw", "adamw-bnb"),
    (r"adam.?mini", "adam-mini"),
    (r"adafactor", "adafactor"),
    (r"hybrid.?adam", "hybrid-adam"),
    (r"muon", "muon"),
    (r"lion", "lion"),
    (r"lamb", "lamb"),
    (r"sophia", "sophia"),
    (r"shampoo", "shampoo"),
    (r"soap", "soap"),
    (r"lomo", "lomo"),
    (r"adagrad", "adagrad"),
    (r"rmsprop", "rmsprop"),
    (r"sgd.*momentum", "sgd-momentum"),
    (r"sgd", "sgd"),
    (r"adamw", "adamw"),
    (r"adam", "adam"),
)
QUANTIZED = (
    (r"nf4|bnb.*4|4.?bit.*bnb|qlora|^4.?bit|int4 \(bnb\)", "nf4"),
    (r"gptq.*int8|int8.*gptq", "gptq-int8"),
    (r"gptq", "gptq-int4"),
    (r"awq", "awq-int4"),
    (r"fp4", "fp4"),
    (r"mxfp4", "mxfp4"),
    (r"int8|8.?bit", "int8"),
)
METHODS: dict[str, AdapterMethod] = {
    word: method
    for kind in ("exact", "near")
    for word, method in json.loads(
        Path(__file__).with_name("adapter_words.json").read_text(encoding="utf-8")
    )[kind].items()
}


METHODS_OF_PAIRS: dict[str, PreferenceMethod] = {
    "dpo": "dpo",
    "ipo": "ipo",
    "kto": "kto",
    "orpo": "orpo",
    "simpo": "simpo",
    "cpo": "cpo",
}


def house_of(framework: str) -> House:
    """The habits of the framework a run names."""
    words = framework.lower()
    return next((house for word, house in HOUSES if word in words), House())


def optimizer(text: Any, settings: dict[str, Any], house: House) -> Optimizer:
    """The optimizer of a source's words. Raises Unmapped."""
    words = str(text or "adamw").lower()
    name = next((name for pattern, name in OPTIMIZERS if re.search(pattern, words)), "")
    if name == "adamw-bnb" and house.paged_with_bnb:
        name = "paged-adamw"
    if not name:
        raise Unmapped(f"optimizer {text!r} is not known")
    kind = optimizers()[name]
    rank = re.search(r"rank\s*=?\s*(\d+)", words)
    step = kind.steps[0]
    if "fused" in words and "fused" in kind.steps:
        step = "fused"
    # torchao's CPUOffloadOptimizer may drop each gradient when it is copied to the host.
    # GaLore's layerwise optimizers step in hooks of the backward pass.
    in_backward = "layerwise" in words or any(
        map(settings.get, ("optimizer_in_backward", "offload_gradients"))
    )
    return Optimizer(name, step, rank=int(rank[1]) if rank else 128, in_backward=in_backward)


def check_task(task: str) -> None:
    """Raises Unmapped for reinforcement learning."""
    for word in _words(task):
        if word in ("ppo", "grpo", "rloo"):
            raise Unmapped(f"task {word!r} is reinforcement learning, which is not built yet")


def preference(task: str, house: House, *, adapts: bool) -> Preference | None:
    """The preference method a task names; its reference is the model without its adapter, where it
    has one and the library uses it so."""
    method = next((METHODS_OF_PAIRS[w] for w in _words(task) if w in METHODS_OF_PAIRS), None)
    if method is None:
        return None
    if method in ("orpo", "simpo", "cpo"):
        return Preference(method, "none")
    return Preference(method, "adapter-off" if adapts and not house.second_model else "model")


def method_of(named: str) -> AdapterMethod | None:
    """The adapter method of a task's or a library's words; None where they name none."""
    text = named.lower().replace("adapter v2", "adapter_v2")
    for word in re.split(r"[\s+,/()]+", text):
        for part in (word, word.replace("-", "_"), *reversed(word.split("-"))):
            if part in METHODS:
                return METHODS[part]
    return None


def _words(task: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", task.lower())


def quantized_format(text: str) -> str | None:
    """The weight format that a precision's words name."""
    words = text.lower()
    if "mxfp4" in words:
        return "mxfp4"
    return next((name for pattern, name in QUANTIZED if re.search(pattern, words)), None)


def precision(text: str, settings: dict[str, Any]) -> Precision:
    """The precision of a run that trains the whole model. Raises Unmapped."""
    words = text.lower().replace("_", "-")
    plain: dict[str, Precision] = {
        "fp32": "fp32",
        "32": "fp32",
        "tf32": "tf32",
        "bf16": "bf16",
        "bf16-true": "bf16",
        "fp16": "fp16",
        "bf16-mixed": "bf16-mixed",
        "fp16-mixed": "fp16-mixed",
        "amp-bf16": "bf16-mixed",
        "amp-fp16": "fp16-mixed",
        "fp8": "fp8",
        "mxfp8": "mxfp8",
        "nvfp4": "nvfp4",
    }
    if words in plain:
        return plain[words]
    if words.startswith("bf16 params"):
        return "bf16"
    raise Unmapped(f"precision {text!r} is not known")


def attention(text: Any) -> Attention:
    """The attention kernel; the default where none is named."""
    words = str(text or "").lower()
    if words.startswith(("eager", "unfused", "math")):
        return "eager"
    if "flash" in words or "xformers" in words or words.startswith("te"):
        return "flash-attention-3" if words.startswith("flash3") else "flash-attention-2"
    return "sdpa"


def checkpointing(text: Any) -> tuple[Checkpointing, bool]:
    """What is recomputed, and whether what is kept leaves the GPU. Raises Unmapped."""
    words = str(text or "none").lower()
    if words.startswith("full"):
        return "full", "offload" in words
    if words.startswith("selective"):
        return "selective", False
    if words in ("none", "false", "no"):
        return "none", False
    raise Unmapped(f"activation checkpointing {text!r} is not built yet")
