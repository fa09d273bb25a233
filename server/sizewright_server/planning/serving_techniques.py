"""What each technique makes of a serving engine's run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.serving.run import ServingRun, ServingWorkload
from sizewright_server.estimation.workload import Inference, Workload
from sizewright_server.planning.changes import Change, Form, Rule, with_run

#: Weights that are not quantised yet.
PLAIN_WEIGHTS = ("bf16", "fp16", "fp32")


def _served(workload: AnyWorkload) -> ServingRun | None:
    return workload.run if isinstance(workload, ServingWorkload) else None


def _with_served(workload: AnyWorkload, field: str, before: str, after: str, **to: Any) -> Form:
    assert isinstance(workload, ServingWorkload)
    change = Change(f"workload.inference.{field}", before, after)
    return replace(workload, run=replace(workload.run, **to)), (change,)


def _quantized_cache(workload: AnyWorkload) -> Iterator[Form]:
    run = _served(workload)
    if run is not None and run.engine in ("vllm", "sglang") and run.kv_type in PLAIN_WEIGHTS:
        yield _with_served(workload, "kv_dtype", run.kv_type, "fp8", kv_type="fp8")


def _quantized_weights(workload: AnyWorkload) -> Iterator[Form]:
    run = _served(workload)
    if run is None or run.weight_type not in PLAIN_WEIGHTS or run.stored_bytes is not None:
        return
    for format_name in ("fp8", "awq-int4"):
        yield _with_served(
            workload, "weight_dtype", run.weight_type, format_name, weight_type=format_name
        )


def _without_graphs(workload: AnyWorkload) -> Iterator[Form]:
    run = _served(workload)
    if run is not None and run.engine in ("vllm", "sglang") and not run.eager:
        yield _with_served(workload, "serving.enforce_eager", "false", "true", eager=True)


def _smaller_batch(workload: AnyWorkload) -> Iterator[Form]:
    """Half as many sequences at once; the others wait."""
    if isinstance(workload, ServingWorkload) and workload.run.batch > 1:
        before = workload.run.batch
        yield _with_served(workload, "batch", str(before), str(before // 2), batch=before // 2)
    elif isinstance(workload, Workload) and isinstance(workload.run, Inference):
        before = workload.run.batch
        if before > 1:
            yield with_run(workload, "batch", before, before // 2, batch=before // 2)


SERVING: dict[str, Rule] = {
    "no-cuda-graphs": _without_graphs,
    "smaller-batch": _smaller_batch,
    "quantized-cache": _quantized_cache,
    "quantized-weights": _quantized_weights,
}
