"""Which layouts an engine may take, and what contradicts the model."""

from __future__ import annotations

from functools import lru_cache

from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.serving.model import ServedModel
from sizewright_server.estimation.serving.run import POOLED, ServingRun, ServingWorkload
from sizewright_server.estimation.workload import Layout

#: Models with an encoder and a decoder that vLLM serves.
WITH_ENCODER = ("whisper",)
#: The version of vLLM that has decode context parallelism for latents and for heads.
CONTEXT_PARALLEL_FROM = (0, 11)


def legal_tensor_parallel(model: ServedModel) -> tuple[int, ...]:
    """Sizes that divide the attention heads and go with the key/value heads."""
    return tuple(
        t
        for t in range(1, model.heads + 1)
        if model.heads % t == 0 and (model.kv_heads % t == 0 or t % model.kv_heads == 0)
    )


@lru_cache(maxsize=4096)
def serving_layouts(
    legal_tp: tuple[int, ...], layers: int, gpus: int, gpus_per_node: int
) -> tuple[Layout, ...]:
    """Tensor parallelism within a node; the rest pipelines, or replicas."""
    found = []
    for tp in reversed(legal_tp):
        if tp > gpus_per_node or gpus % tp:
            continue
        rest = gpus // tp
        found.append(Layout(dp=rest, tp=tp))
        if 1 < rest <= layers:
            found.append(Layout(tp=tp, pp=rest))
    return tuple(found)


def shares_context(model: ServedModel, tp: int, ranks: int) -> bool:
    """Whether `ranks` of `tp` can share sequences: latents always, heads only where ranks hold
    copies of them (vllm/config/model.py, `verify_with_parallel_config`)."""
    if tp % ranks:
        return False
    if any(cache.kind == "latent" for cache in model.caches):
        return True
    return ranks <= tp // model.kv_heads and (model.heads // model.kv_heads) % ranks == 0


def _context_parallel(
    run: ServingRun, model: ServedModel, legal: tuple[int, ...]
) -> list[Violation]:
    """What contradicts decode context parallelism."""
    field, ranks = "workload.inference.serving.decode_context_parallel", run.decode_context_parallel
    if run.version is not None and run.version < CONTEXT_PARALLEL_FROM:
        since = ".".join(map(str, CONTEXT_PARALLEL_FROM))
        return [Violation(field, f"vllm has it since {since}")]
    if any(cache.kind in ("sliding", "chunked") for cache in model.caches):
        return [Violation(field, "vllm has none for layers with windows (SlidingWindowSpec)")]
    possible = [tp for tp in legal if shares_context(model, tp, ranks)]
    asked = run.layout.tp if run.layout is not None else None
    if not possible or (asked is not None and asked not in possible):
        sizes = ", ".join(map(str, possible)) or "none"
        text = (
            f"{ranks} ranks cannot share {model.kv_heads} key/value heads; it takes copies of them "
            f"and a tensor-parallel size of: {sizes}"
        )
        return [Violation(field, text)]
    return []


def refuse_contradictions(
    workload: ServingWorkload, model: ServedModel, legal: tuple[int, ...]
) -> None:
    """Raises UnsupportedWorkload for an explicit layout or length the model cannot take."""
    run, wrong = workload.run, []
    field = "workload.inference"
    if model.encoder_decoder and run.engine in POOLED and model.model_type not in WITH_ENCODER:
        text = (
            f"{run.engine} serves no {model.model_type}: of models with an encoder and a decoder "
            "vllm has whisper (model registry of 0.33; BART is a plugin's); use transformers"
        )
        wrong.append(Violation(f"{field}.engine", text))
    if model.encoder_decoder and run.engine == "sglang":
        wrong.append(Violation(f"{field}.engine", "sglang's encoder-decoder models are not known"))
    layout = run.layout
    if layout is not None and layout.tp not in legal:
        possible = ", ".join(map(str, legal))
        text = (
            f"{layout.tp} does not divide {model.heads} heads and {model.kv_heads} key/value heads;"
        )
        wrong.append(Violation(f"{field}.parallelism.explicit.tp", f"{text} possible: {possible}"))
    if layout is not None and layout.pp > len(model.order):
        text = f"{layout.pp} stages for {len(model.order)} layers"
        wrong.append(Violation(f"{field}.parallelism.explicit.pp", text))
    if run.decode_context_parallel > 1:
        wrong += _context_parallel(run, model, legal)
    longest = run.max_model_len
    if longest and run.tokens > longest and run.engine in POOLED:
        text = f"{longest} is less than input_tokens + new_tokens ({run.tokens})"
        wrong.append(Violation(f"{field}.serving.max_model_len", text))
    if wrong:
        raise UnsupportedWorkload(*wrong)
