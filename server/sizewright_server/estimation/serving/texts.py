"""The words of serving parts: formula and source by name."""

from __future__ import annotations

from sizewright_server.estimation.memory import ByteRange, Confidence, Part

#: Formula, source and confidence by part.
TEXTS: dict[str, tuple[str, str, Confidence]] = {
    "weights": (
        "parameters of the rank x bytes of the stored type",
        "tensor shapes of the modelling code",
        "high",
    ),
    "layers": (
        "attention, dense feed-forward and norms of the rank's layers",
        "tensor shapes of the modelling code",
        "high",
    ),
    "experts": ("experts of the rank's layers", "tensor shapes of the modelling code", "high"),
    "embedding": ("vocabulary rows of the rank x width", "vocab_parallel_embedding.py", "high"),
    "head": ("output vocabulary rows of the rank x width", "vocab_parallel_embedding.py", "high"),
    "vision-tower": ("vision tower and projector", "tensor shapes of the modelling code", "medium"),
    "rotary-tables": (
        "positions x rotary width x bytes",
        "rotary_embedding.py keeps cosines and sines of every position",
        "high",
    ),
    "absorbed-projections": (
        "copies of the latent's up-projections for absorbed attention",
        "mla process_weights_after_loading",
        "medium",
    ),
    "adapters": ("slots x rank x (inputs + outputs) of every linear layer", "lora layers", "high"),
    "draft-model": ("parameters of the draft model", "speculative decoding", "high"),
    "loading-overhead": (
        "what the device loses to loading beyond the weights",
        "SGLang logs at one and four ranks",
        "low",
    ),
    "mask-buffers": ("positions x positions x layers", "modelling code's causal mask", "high"),
    "stored-weights": (
        "bytes of the files over the ranks",
        "safetensors headers the client read",
        "high",
    ),
    "activations": (
        "the larger of a layer's widest moment over the batch and the sampler over all sequences",
        "gpu_model_runner.profile_run; logs of vLLM 0.19",
        "medium",
    ),
    "non-torch": (
        "what libraries take beside PyTorch's allocator while the engine starts",
        "engine logs by version and link",
        "medium",
    ),
    "cuda-graphs": ("base + layers x each", "engine logs", "low"),
    "kv-cache": ("blocks x bytes of a block", "kv_cache_utils.py", "high"),
    "engine-start": (
        "device context and communicators before weights are loaded",
        "start-up snapshots of vLLM 0.19 on H100",
        "medium",
    ),
    "utilization-reserve": (
        "what the engine's share leaves unused of the least GPU",
        "need / share - need",
        "high",
    ),
    "concatenation": ("one layer's keys, old and new at once", "cache_utils.py", "high"),
    "logits": ("kept positions x vocabulary x bytes", "generation/utils.py", "high"),
    "kernel-buffers": (
        "what quantised kernels keep beside their results",
        "bitsandbytes, AutoGPTQ and AutoAWQ kernels",
        "medium",
    ),
    "allocator-slack": (
        "share of what comes and goes that the caching allocator holds beyond live tensors",
        "replays of the allocator over traced transformers",
        "medium",
    ),
    "library-workspaces": ("cuBLAS workspace in the allocator", "PyTorch", "medium"),
}


def part(name: str, size: ByteRange, numbers: str = "", parts: tuple[Part, ...] = ()) -> Part:
    """A named part with its words."""
    formula, source, confidence = TEXTS[name]
    shown = numbers or f"{size.best_bytes:,} B"
    return Part(name, size, formula, shown, source, confidence, parts)


def exact(name: str, size: int, numbers: str = "") -> Part:
    """A part without doubt."""
    return part(name, ByteRange(size, size, size), numbers)


def total(parts: tuple[Part, ...]) -> ByteRange:
    """The sum of parts."""
    made = ByteRange(0, 0, 0)
    for each in parts:
        made = made + each.size
    return made
