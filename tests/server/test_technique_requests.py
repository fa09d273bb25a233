"""Techniques as requests state them: what is read, and which contradictions are refused and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sizewright.v1 import workload_pb2 as pb
from sizewright_catalog.devices import find_device
from sizewright_server.estimation.problems import Violation
from sizewright_server.estimation.workload import Training, Workload
from sizewright_server.planning.devices import lacks, native_features
from sizewright_server.wire.workloads import WorkloadReader

Change = Callable[[pb.Training], Any]


def message(change: Change) -> pb.Workload:
    made = pb.Workload()
    made.model.preset = "meta-llama/Meta-Llama-3-8B"
    training = made.training
    training.precision, training.optimizer.name = "bf16", "adamw"
    training.micro_batch, training.seq_len = 1, 1024
    change(training)
    return made


def read(change: Change) -> tuple[Training | None, list[Violation]]:
    problems: list[Violation] = []
    workload = WorkloadReader(problems).read(message(change))
    run = workload.run if isinstance(workload, Workload) else None
    return run if isinstance(run, Training) else None, problems


def _lora(training: pb.Training) -> None:
    training.adapter.method = "lora"


def _several(*changes: Change) -> Change:
    def change(training: pb.Training) -> None:
        for one in changes:
            one(training)

    return change


def _set(path: str, value: Any) -> Change:
    *parents, name = path.split(".")

    def change(training: pb.Training) -> None:
        target: Any = training
        for parent in parents:
            target = getattr(target, parent)
        if isinstance(value, list):
            getattr(target, name).extend(value)
        else:
            setattr(target, name, value)

    return change


WRONG: list[tuple[Change, str, str]] = [
    (_set("optimizer.name", "adamv"), "optimizer.name", "did you mean 'adam"),
    (
        _several(_set("optimizer.name", "lion"), _set("optimizer.step", 2)),
        "optimizer.step",
        "'lion' has no 'fused' step; use 'for-loop'",
    ),
    (
        _several(_set("optimizer.in_backward", True), _set("gradient_accumulation_steps", 4)),
        "optimizer.in_backward",
        "cannot wait for gradients to accumulate",
    ),
    (_set("adapter.method", "lorra"), "adapter.method", "did you mean 'lora'"),
    (_several(_lora, _set("adapter.dropout", 1.5)), "adapter.dropout", "must be below 1"),
    (
        _several(_lora, _set("adapter.targets", ["q_prj"])),
        "adapter.targets",
        "did you mean 'q_proj'",
    ),
    (
        _several(
            _set("adapter.method", "prefix-tuning"),
            _set("activation_checkpointing", "ACTIVATION_CHECKPOINTING_FULL"),
        ),
        "adapter.method",
        "a checkpointed block takes no cache",
    ),
    (_set("base_weights.format", "nf4"), "base_weights", "say which adapter is trained"),
    (
        _several(
            _lora,
            _set("base_weights.format", "gptq-int4"),
            _set("base_weights.double_quantization", True),
        ),
        "base_weights.double_quantization",
        "goes with the formats 'nf4' and 'fp4'",
    ),
    (
        _several(
            _lora,
            _set("base_weights.format", "bf16"),
            _set("base_weights.quantized_experts", True),
        ),
        "base_weights.quantized_experts",
        "'bf16' quantises nothing",
    ),
    (
        _several(_set("preference.method", "dpo"), _set("preference.reference", "adapter-off")),
        "preference.reference",
        "'adapter-off' needs an adapter",
    ),
    (
        _several(_set("preference.method", "dpo"), _set("preference.reference", "none")),
        "preference.reference",
        "'dpo' compares with a reference",
    ),
    (
        _several(_set("preference.method", "orpo"), _set("preference.reference", "model")),
        "preference.reference",
        "'orpo' has no reference",
    ),
    (_set("checkpoint_policy.every_layers", 2), "checkpoint_policy", "nothing is checkpointed"),
    (_set("kernels.loss", "liger"), "kernels.loss", "is not known; use 'full'"),
    (_set("kernels.loss", "tiled"), "kernels.loss", "log-probabilities of dpo, ipo, kto"),
    (_set("states.gradients", "fp8"), "states.gradients", "is not known"),
    (_set("modeling_code", "nanogpt"), "modeling_code", "is not known; use 'transformers'"),
]


@pytest.mark.parametrize(("change", "field", "words"), WRONG, ids=[words for _, _, words in WRONG])
def test_a_contradiction_is_refused_with_its_reason(change: Change, field: str, words: str) -> None:
    run, problems = read(change)
    assert run is None
    named = {p.field.removeprefix("workload.training."): p.description for p in problems}
    assert field in named, named
    assert words in named[field]


def test_an_adapter_takes_pefts_defaults_for_what_is_not_stated() -> None:
    run, problems = read(_lora)
    assert not problems
    assert run is not None
    assert run.adapter is not None
    assert (run.adapter.rank, run.adapter.dtype) == (8, "fp32")
    assert run.adapter.targets >= {"q", "v"}


def test_dpo_compares_with_the_adapter_switched_off_where_there_is_one() -> None:
    alone, _ = read(_set("preference.method", "dpo"))
    adapted, _ = read(_several(_lora, _set("preference.method", "dpo")))
    assert alone is not None
    assert adapted is not None
    assert alone.preference is not None
    assert adapted.preference is not None
    assert (alone.preference.reference, adapted.preference.reference) == ("model", "adapter-off")


@pytest.mark.parametrize(
    ("precision", "gpu", "missing"),
    [
        ("fp8", "V100-32GB", True),
        ("fp8", "A100-80GB-SXM", True),
        ("fp8", "H100-SXM", False),
        ("nvfp4", "H100-SXM", True),
        ("tf32", "A100-80GB-SXM", False),
    ],
)
def test_a_gpu_without_the_type_is_not_offered(precision: str, gpu: str, missing: bool) -> None:
    problems: list[Violation] = []
    workload = WorkloadReader(problems).read(message(_set("precision", precision)))
    device = find_device(gpu)
    assert isinstance(workload, Workload)
    assert device is not None
    assert bool(lacks(device, native_features(workload))) == missing
