"""Memory techniques: what each makes of a workload, and what it costs.

A technique is a function from a workload to the forms it may take, mildest first, each with the
fields it changes. It yields nothing where it does not apply. Its figures are data
(`data/techniques.json`); what it saves is always found by estimating the changed workload.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, TypeAlias, TypeVar

from sizewright_server.estimation.adapter_targets import adapter_targets
from sizewright_server.estimation.classical.prepared import FitWorkload
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.serving.run import ServingRun, ServingWorkload
from sizewright_server.estimation.techniques import Adapter, BaseWeights
from sizewright_server.estimation.workload import Inference, Training, Workload

RunT = TypeVar("RunT", Training, Inference)


@dataclass(frozen=True, slots=True)
class Change:
    """One field of the request, before and after."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a technique; `time` is relative to without: low, best, high.

    `never_adds`: no pool of any layout needs more with it than without.
    """

    changes_results: bool
    never_adds: bool
    time: tuple[float, float, float]
    cost: str
    source: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A technique as it was applied to a workload."""

    name: str
    changes: tuple[Change, ...]

    @property
    def figures(self) -> Figures:
        """What it costs."""
        return figures()[self.name]


#: Rank of the adapters that are proposed: between PEFT's default of 8 and the common 64.
LORA_RANK = 16
#: Optimizers that have a form with 8-bit states.
EIGHT_BIT = {
    "adamw": "adamw-8bit",
    "adam": "adam-8bit",
    "lion": "lion-8bit",
    "sgd-momentum": "sgd-8bit",
    "rmsprop": "rmsprop-8bit",
    "adagrad": "adagrad-8bit",
    "paged-adamw": "paged-adamw-8bit",
}
#: Weights that are not quantised yet.
PLAIN_WEIGHTS = ("bf16", "fp16", "fp32")
#: Density below which values with their indices take less than all values.
WORTH_SPARSE = 0.5
Form: TypeAlias = tuple[AnyWorkload, tuple[Change, ...]]


@cache
def figures() -> dict[str, Figures]:
    """Every technique, mildest first."""
    text = resources.files("sizewright_server.planning").joinpath("data/techniques.json")
    table: dict[str, Any] = json.loads(text.read_text(encoding="utf-8"))
    return {
        name: Figures(
            bool(entry["changes_results"]),
            bool(entry["never_adds"]),
            _three(entry["time"]),
            entry["cost"],
            entry["source"],
        )
        for name, entry in table.items()
        if not name.startswith("_")
    }


def _three(values: list[float]) -> tuple[float, float, float]:
    low, best, high = values
    return low, best, high


def forms(name: str, workload: AnyWorkload) -> list[tuple[AnyWorkload, Applied]]:
    """The forms a technique may give a workload, mildest first; none where it does not apply."""
    return [(made, Applied(name, changes)) for made, changes in RULES[name](workload)]


# -- training ------------------------------------------------------------------------------------


def _training(workload: AnyWorkload) -> Training | None:
    if isinstance(workload, Workload) and isinstance(workload.run, Training):
        return workload.run
    return None


def _with_run(workload: AnyWorkload, field: str, before: object, after: object, **to: Any) -> Form:
    """A workload with fields of its run replaced, and the change as people see it."""
    assert isinstance(workload, Workload)
    section = "training" if isinstance(workload.run, Training) else "inference"
    change = Change(f"workload.{section}.{field}", str(before), str(after))
    return replace(workload, run=replace(workload.run, **to)), (change,)


def _fused_step(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.optimizer.step == "foreach":
        optimizer = replace(run.optimizer, step="fused")
        yield _with_run(workload, "optimizer.step", "foreach", "fused", optimizer=optimizer)


def _attention(workload: AnyWorkload) -> Iterator[Form]:
    if isinstance(workload, Workload) and workload.run.attention == "eager":
        yield _with_run(workload, "attention", "eager", "sdpa", attention="sdpa")


def _accumulation(workload: AnyWorkload) -> Iterator[Form]:
    """Smaller micro-batches, the global batch kept: every divisor, largest first."""
    run = _training(workload)
    if run is None:
        return
    for size in range(run.micro_batch // 2, 0, -1):
        if run.micro_batch % size:
            continue
        steps = run.gradient_accumulation_steps * (run.micro_batch // size)
        made, changes = _with_run(
            workload,
            "micro_batch",
            run.micro_batch,
            size,
            micro_batch=size,
            gradient_accumulation_steps=steps,
        )
        more = Change(
            "workload.training.gradient_accumulation_steps",
            str(run.gradient_accumulation_steps),
            str(steps),
        )
        yield made, (*changes, more)


def _checkpointing(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.checkpointing != "full":
        before = run.checkpointing
        yield _with_run(workload, "activation_checkpointing", before, "full", checkpointing="full")


def _loss_kernel(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.kernels.loss is None and run.preference is None:
        kernels = replace(run.kernels, loss="fused-linear")
        yield _with_run(workload, "kernels.loss", "full", "fused-linear", kernels=kernels)


def _expandable(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and not run.expandable_segments:
        yield _with_run(workload, "expandable_segments", "false", "true", expandable_segments=True)


def _selective(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.checkpointing == "none":
        yield _with_run(
            workload, "activation_checkpointing", "none", "selective", checkpointing="selective"
        )


def _eight_bit(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    after = EIGHT_BIT.get(run.optimizer.name) if run is not None else None
    if run is not None and after is not None:
        optimizer = replace(run.optimizer, name=after)
        yield _with_run(workload, "optimizer.name", run.optimizer.name, after, optimizer=optimizer)


def _step_in_backward(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is None or run.optimizer.in_backward or run.gradient_accumulation_steps > 1:
        return
    if run.offload != "none":
        return
    optimizer = replace(run.optimizer, in_backward=True)
    yield _with_run(workload, "optimizer.in_backward", "false", "true", optimizer=optimizer)


def _offload(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is None or run.offload != "none" or run.optimizer.in_backward:
        return  # DeepSpeed steps on the CPU when all gradients are there.
    if run.layout is not None and run.layout.offload != "none":
        return
    for target in ("optimizer", "optimizer-and-parameters"):
        yield _with_run(workload, "parallelism.offload", "none", target, offload=target)


def _lora(workload: AnyWorkload) -> Iterator[Form]:
    yield from _adapted(workload, None)


def _qlora(workload: AnyWorkload) -> Iterator[Form]:
    yield from _adapted(workload, BaseWeights("nf4", double_quantization=True))


def _adapted(workload: AnyWorkload, base: BaseWeights | None) -> Iterator[Form]:
    """Adapters on every linear layer in place of training all weights."""
    run = _training(workload)
    if run is None or run.adapter is not None:
        return
    targets = adapter_targets(["all-linear"], "lora")
    adapter = Adapter("lora", rank=LORA_RANK, targets=targets)
    made, changes = _with_run(
        workload, "adapter.method", "none", "lora", adapter=adapter, base_weights=base
    )
    more = [
        Change("workload.training.adapter.rank", "0", str(LORA_RANK)),
        Change("workload.training.adapter.targets", "none", "all-linear"),
    ]
    if base is not None:
        more.append(Change("workload.training.base_weights.format", "none", base.format))
        double = "workload.training.base_weights.double_quantization"
        more.append(Change(double, "false", "true"))
    yield made, (*changes, *more)


def _mixed_precision(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.precision == "fp32":
        yield _with_run(workload, "precision", "fp32", "bf16-mixed", precision="bf16-mixed")


def _pure_bf16(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.precision in ("fp32", "bf16-mixed"):
        yield _with_run(workload, "precision", run.precision, "bf16", precision="bf16")


def _shorter(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.seq_len >= 512:
        half = run.seq_len // 2
        yield _with_run(workload, "seq_len", run.seq_len, half, seq_len=half)


# -- serving ------------------------------------------------------------------------------------


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
    if run is None or run.weight_type not in PLAIN_WEIGHTS or run.stored is not None:
        return
    for format_name in ("fp8", "awq-int4"):
        yield _with_served(
            workload, "weight_dtype", run.weight_type, format_name, weight_type=format_name
        )


def _without_graphs(workload: AnyWorkload) -> Iterator[Form]:
    run = _served(workload)
    if run is not None and run.engine in ("vllm", "sglang") and not run.eager:
        yield _with_served(workload, "serving.enforce_eager", "false", "true", eager=True)


# -- data and hosts ------------------------------------------------------------------------------


def _loader_workers(workload: AnyWorkload) -> Iterator[Form]:
    if isinstance(workload, Workload) and workload.host.loader_workers > 1:
        before = workload.host.loader_workers
        for after in sorted({before // 2, 1}, reverse=True):
            host = replace(workload.host, loader_workers=after)
            change = Change("workload.host.loader_workers", str(before), str(after))
            yield replace(workload, host=host), (change,)


def _memory_mapped(workload: AnyWorkload) -> Iterator[Form]:
    if not isinstance(workload, Workload) or workload.dataset is None:
        return
    if workload.dataset.container == "in-memory":
        dataset = replace(workload.dataset, container="memory-mapped")
        change = Change("workload.dataset.container", "in-memory", "memory-mapped")
        yield replace(workload, dataset=dataset), (change,)


def _with_job(workload: FitWorkload, change: Change, **to: Any) -> Form:
    return replace(workload, job=replace(workload.job, **to)), (change,)


def _float32(workload: AnyWorkload) -> Iterator[Form]:
    if not isinstance(workload, FitWorkload) or workload.job.table.dtype != "float64":
        return
    table = replace(workload.job.table, dtype="float32")
    yield _with_job(workload, Change("workload.dataset.dtype", "float64", "float32"), table=table)


def _fewer_jobs(workload: AnyWorkload) -> Iterator[Form]:
    """Half the workers, then one: each holds its own copies."""
    if not isinstance(workload, FitWorkload) or "n_jobs" not in workload.job.parameters:
        return
    before = workload.job.workers()
    for after in sorted({max(before // 2, 1), 1} - {before}, reverse=True):
        field = "workload.model.estimator.hyper_parameters.n_jobs"
        parameters = {**workload.job.parameters, "n_jobs": after}
        yield _with_job(workload, Change(field, str(before), str(after)), parameters=parameters)


def _sparse(workload: AnyWorkload) -> Iterator[Form]:
    """A table that is mostly zeros, stored without them."""
    if not isinstance(workload, FitWorkload):
        return
    table = workload.job.table
    if table.container == "numpy" and 0 < table.density < WORTH_SPARSE:
        sparse = replace(table, container="csr")
        yield _with_job(
            workload, Change("workload.dataset.container", "numpy", "csr"), table=sparse
        )


def _free_table(workload: AnyWorkload) -> Iterator[Form]:
    if not isinstance(workload, FitWorkload) or workload.job.frees_table:
        return
    if workload.job.library in ("xgboost", "lightgbm"):
        change = Change("workload.fit.frees_dataset", "false", "true")
        yield _with_job(workload, change, frees_table=True)


RULES: dict[str, Callable[[AnyWorkload], Iterator[Form]]] = {
    "fused-optimizer-step": _fused_step,
    "memory-efficient-attention": _attention,
    "gradient-accumulation": _accumulation,
    "expandable-segments": _expandable,
    "fused-linear-loss": _loss_kernel,
    "selective-checkpointing": _selective,
    "activation-checkpointing": _checkpointing,
    "fewer-loader-workers": _loader_workers,
    "memory-mapped-dataset": _memory_mapped,
    "free-the-table": _free_table,
    "step-in-backward": _step_in_backward,
    "optimizer-offload": _offload,
    "no-cuda-graphs": _without_graphs,
    "fewer-jobs": _fewer_jobs,
    "sparse-table": _sparse,
    "quantized-cache": _quantized_cache,
    "quantized-weights": _quantized_weights,
    "mixed-precision": _mixed_precision,
    "8-bit-optimizer": _eight_bit,
    "pure-bf16": _pure_bf16,
    "float32-table": _float32,
    "lora": _lora,
    "qlora": _qlora,
    "shorter-sequences": _shorter,
}
