"""Which layouts an engine may take, and what contradicts the model."""

from __future__ import annotations

from functools import lru_cache

from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.serving.model import ServedModel
from sizewright_server.estimation.serving.run import POOLED, ServingWorkload
from sizewright_server.estimation.workload import Layout


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


def refuse_contradictions(
    workload: ServingWorkload, model: ServedModel, legal: tuple[int, ...]
) -> None:
    """Raises UnsupportedWorkload for an explicit layout or length the model cannot take."""
    run, wrong = workload.run, []
    field = "workload.inference"
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
    longest = run.max_model_len
    if longest and run.tokens > longest and run.engine in POOLED:
        text = f"{longest} is less than input_tokens + new_tokens ({run.tokens})"
        wrong.append(Violation(f"{field}.serving.max_model_len", text))
    if wrong:
        raise UnsupportedWorkload(*wrong)
