"""Maps published serving runs: engines with a pool, transformers, and kin that run its modules."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from tests.accuracy.case import Case, Mapped, Unmapped
from tests.accuracy.serving_models import served_source

from sizewright_catalog.devices import find_device
from sizewright_server.estimation.memory import ByteRange, MemoryEstimate
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.serving.devices import serving_device
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.serving.rules import parse_version
from sizewright_server.estimation.serving.run import (
    ServingDevice,
    ServingRun,
    ServingWorkload,
)
from sizewright_server.estimation.workload import Layout
from sizewright_server.planning.devices import served_on

GIB = 2**30
#: Engines of other kinds, which the product refuses by name.
OTHER_CATEGORIES = ("llama.cpp", "diffusers", "whisper", "embedding", "vision", "trt-llm", "cpu")
#: Stored types by what a case's words hold, the most special first.
WEIGHT_TYPES = (
    ("w4a16", "w4a16"),
    ("w8a8", "int8-w8a8"),
    ("mxfp4", "mxfp4"),
    ("nvfp4", "nvfp4"),
    ("double", "bnb-nf4-double-quant"),
    ("nf4", "bnb-nf4"),
    ("bnb-int8", "bnb-int8"),
    ("bnb-fp4", "bnb-nf4"),
    ("bnb-int4", "bnb-nf4"),
    ("llm.int8", "bnb-int8"),
    ("awq", "awq-int4"),
    ("gptq-int3", "gptq-int3"),
    ("gptq-int8", "gptq-int8"),
    ("gptq", "gptq-int4"),
    ("exl2", "gptq-int4"),
    ("hqq-int8", "hqq-int8"),
    ("hqq", "hqq-int4"),
    ("torchao-int8", "torchao-int8"),
    ("torchao-int4", "torchao-int4"),
    ("int8wo", "torchao-int8"),
    ("int4wo", "torchao-int4"),
    ("int8-weight-only", "torchao-int8"),
    ("int4-weight-only", "torchao-int4"),
    ("fp8", "fp8"),
    ("float8", "fp8"),
    ("int8", "int8-w8a8"),
    ("int4", "w4a16"),
    ("bf16", "bf16"),
    ("bfloat16", "bf16"),
    ("fp16", "fp16"),
    ("float16", "fp16"),
    ("fp32", "fp32"),
    ("float32", "fp32"),
)
#: Types of caches by what a case's words hold.
CACHE_WORDS = (
    ("nvfp4", "nvfp4"),
    ("fp8", "fp8"),
    ("int8", "int8"),
    ("int4", "int4"),
    ("fp32", "fp32"),
    ("float32", "fp32"),
    ("fp16", "fp16"),
    ("float16", "fp16"),
    ("bf16", "bf16"),
    ("bfloat16", "bf16"),
)
#: GPU names of cases that are not the catalog's own.
GPUS = {
    "H100-80GB": "H100-SXM",
    "A100-80GB": "A100-80GB-SXM",
    "A100-SXM4-80GB": "A100-80GB-SXM",
    "A100-SXM4-40GB": "A100-40GB-SXM",
    "A100-40GB": "A100-40GB-SXM",
    "RTX 3090": "RTX-3090",
    "RTX 3090-24GB": "RTX-3090",
    "RTX-3090-24GB": "RTX-3090",
    "RTX 4090": "RTX-4090",
    "RTX 5090": "RTX-5090",
    "L40S-48GB": "L40S",
    "H20-96GB": "H20",
    "H200-141GB": "H200-SXM",
    "V100-32GB": "V100-32GB-SXM",
    "V100": "V100-32GB-SXM",
}
#: Versions that cases give as a date.
NEWEST = {"vllm": "0.21", "sglang": "0.5"}


def map_serving(case: Case) -> Mapped | MemoryEstimate:
    """The estimate of a serving case. Raises Unmapped with the reason."""
    work = case["workload"]
    category = str(work.get("category") or case.get("category") or "")
    if category in OTHER_CATEGORIES:
        raise Unmapped(f"engine {work.get('engine')!r} is not built yet")
    run = _run(work, category)
    workload = ServingWorkload(served_source(work), run)
    prepared = PreparedServing(workload)
    layout = run.layout or Layout()
    device = _device(work)
    overhead = device_overhead(
        "nvidia", "9.0" if device.sized_bytes >= 70 * GIB and not device.modest else "8.0"
    )
    return prepared.estimate(layout, layout.gpus, overhead, device=device)


def _run(work: Case, category: str) -> ServingRun:
    settings = work.get("settings") or {}
    engine: Any = category if category in ("vllm", "sglang") else "transformers"
    words = str(work.get("weight_dtype") or "bf16")
    stored = _stored_type(work, words)
    compute: Any = stored if stored in ("fp32", "bf16", "fp16") else "bf16"
    parallel = work.get("gpus") or 1
    tp, pp = int(work.get("tp") or 1), int(work.get("pp") or 1)
    if engine == "transformers" and parallel > tp * pp:
        pp = int(parallel)
    prompt, new = _lengths(work, settings)
    ahead = settings.get("kv_preallocated_tokens") if settings.get("kv_preallocated") else None
    return ServingRun(
        engine=engine,
        weight_type=stored,
        kv_type=_cache_type(work.get("kv_dtype"), compute),
        compute_type=compute,
        batch=int(work.get("batch") or 1),
        input_tokens=prompt,
        new_tokens=new,
        version=_version(work, engine),
        generation=settings.get("engine_generation"),
        group_size=settings.get("quant_group_size"),
        utilization=settings.get("mem_fraction_static") or work.get("gpu_memory_utilization"),
        max_model_len=work.get("max_model_len") if category in ("vllm", "sglang") else None,
        max_num_seqs=work.get("max_num_seqs"),
        max_num_batched_tokens=settings.get("max_num_batched_tokens")
        or settings.get("chunked_prefill_size"),
        block_tokens=settings.get("block_size") if engine == "vllm" else None,
        eager=bool(work.get("enforce_eager")),
        chunked_prefill=settings.get("chunked_prefill"),
        skip_encoder=bool(settings.get("skip_multimodal_profiling")),
        graphs_in_budget=settings.get("cuda_graphs_in_kv_budget"),
        attention_data_parallel=bool(
            settings.get("dp_attention") or settings.get("enable_dp_attention")
        ),
        hybrid_cache=not settings.get("disable_hybrid_kv_cache_manager"),
        cache=_cache(settings, ahead, new),
        cache_tokens=ahead,
        logits_to_keep=0 if settings.get("logits_kept") == "all" else 1,
        token_by_token=bool(settings.get("token_by_token")),
        attention="flash-attention-2" if not ahead else "eager",
        layout=Layout(tp=tp, pp=pp),
    )


def _cache(settings: Case, ahead: int | None, new: int) -> Any:
    """An evaluation that generates nothing keeps no cache."""
    if ahead:
        return "static"
    return "dynamic" if new or settings.get("token_by_token") else "none"


def _stored_type(work: Case, words: str) -> str:
    """The project's word for a stored type, told apart by what the engine's files hold."""
    lower, name = words.lower().replace("_", "-"), str(work.get("model")).lower()
    found = next((stored for part, stored in WEIGHT_TYPES if part in lower), None)
    if found is None:
        raise Unmapped(f"weights of {words!r} are not built yet")
    if found == "fp8" and "llama-3.1-405b" in name:
        return "fbgemm-fp8"
    blocks = name.startswith("qwen/") or any(word in name for word in ("deepseek", "kimi-k2"))
    if found == "fp8" and blocks:
        return "fp8-block"
    if found == "int8-w8a8" and "int8" in lower and work.get("category") == "transformers":
        return "bnb-int8"
    return found


def _cache_type(word: object, compute: str) -> str:
    """The cache's type; what is not stated, or automatic, is that of the computation."""
    lower = str(word or "").lower()
    return next((kind for part, kind in CACHE_WORDS if part in lower), compute)


def _lengths(work: Case, settings: Case) -> tuple[int, int]:
    """Prompt and generated tokens; what is not stated is one token."""
    prompt = settings.get("input_tokens")
    new = settings.get("new_tokens")
    ahead = settings.get("kv_preallocated_tokens")
    if prompt is None and ahead:
        return int(ahead), 0
    if settings.get("token_by_token"):
        return int(prompt or 1), 0
    return int(prompt or 1), int(new or 0)


def _version(work: Case, engine: str) -> tuple[int, ...] | None:
    text = str(work.get("engine_version") or "")
    if re.match(r"^v?20\d\d", text) or "dev g" in text or re.search(r"\(20\d\d-", text):
        return parse_version(NEWEST[engine]) if engine in NEWEST else None
    if "v0 log" in text.lower() or text.lower().startswith("0.x"):
        return (0, 6, 3)
    return parse_version(text)


def _device(work: Case) -> ServingDevice:
    """The GPU of a case: a known one, or one of its stated size."""
    settings = work.get("settings") or {}
    name = str(work.get("gpu") or "")
    found = find_device(GPUS.get(name, name))
    if found is not None:
        made = served_on(found)
    else:
        stated = re.search(r"(\d+) ?Gi?B", name)
        size = int(float(stated.group(1)) * GIB) if stated else 0
        vendor = "amd" if re.search(r"AMD|DCU|MI\d", name) else "nvidia"
        made = serving_device(name or "any GPU", vendor, size, 900 if size >= 60 * GIB else 0)
    total = settings.get("gpu_total_gib")
    if total:
        made = replace(made, total=ByteRange(*(int(total * GIB),) * 3))
    return made


def serving_reading(target: dict[str, Any], estimate: MemoryEstimate) -> ByteRange:
    """The estimate's number for a target of a serving case. Raises Unmapped for another."""
    seen, metric = estimate.serving, target["metric"]
    if seen is None:
        raise Unmapped(f"metric {metric!r} is an engine's own")
    names = {
        "weights": "weights",
        "kv_cache": "kv-cache",
        "activation_peak": "activations",
        "non_torch": "non-torch",
        "cuda_graphs": "cuda-graphs",
    }
    counts = {"kv_tokens": seen.kv_tokens, "kv_blocks": seen.kv_blocks}
    if metric in counts:
        count = counts[metric]
        if count is None:
            raise Unmapped("the GPU's memory is not known")
        return ByteRange(count.low, count.best, count.high)
    if metric in names:
        try:
            return seen.part(names[metric])
        except KeyError as missing:
            raise Unmapped(f"{metric} of {seen.engine} is not an estimate of its own") from missing
    gpu = estimate.pool("gpu").gpu
    if gpu is None:
        raise Unmapped("nothing runs on a GPU")
    if target["scope"] == "sum_gpus" and seen.all_gpus is not None:
        return seen.all_gpus
    live = seen.allocated or gpu.allocated
    readings = {"allocated": live, "active": live, "reserved": gpu.reserved}
    return readings.get(target["reading"], gpu.device)
