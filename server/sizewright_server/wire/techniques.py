"""The memory techniques of a training message to values; collects what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

from sizewright.v1 import workload_pb2 as pb
from sizewright_server.estimation import gated_prompts
from sizewright_server.estimation.adapter_targets import (
    UnknownTarget,
    adapter_targets,
    default_rank,
    trained_modules,
)
from sizewright_server.estimation.optimizers import StepKind, optimizers
from sizewright_server.estimation.problems import Violation
from sizewright_server.estimation.techniques import (
    Adapter,
    BaseWeights,
    CheckpointPolicy,
    Kernels,
    Preference,
    StateTypes,
)
from sizewright_server.estimation.workload import Optimizer
from sizewright_server.wire import models
from sizewright_server.wire.violations import from_pydantic, one_of

STEPS: dict[int, StepKind] = {1: "foreach", 2: "fused", 3: "for-loop"}
DEFAULT_RANK = 128
DEFAULT_VIRTUAL_TOKENS = 20
#: litgpt's adapter_prompt_length and PEFT's adapter_len in its examples.
DEFAULT_BLOCK_PROMPT_TOKENS = 10
MAX_RANK = 65_536
#: Methods whose loss needs a reference's log-probabilities.
COMPARING = ("dpo", "ipo", "kto")

SectionT = TypeVar("SectionT", bound=models.Section)


class TechniquesReader:
    """Reads what says how a training run saves memory. `problems` holds what was wrong."""

    def __init__(self, problems: list[Violation], path: str) -> None:
        self.problems = problems
        self.path = path

    def read(self, message: pb.Training) -> dict[str, Any] | None:
        """Fields of `Training` by name; None when anything was wrong."""
        before = len(self.problems)
        values: dict[str, Any] = {
            "optimizer": self._optimizer(message.optimizer, message.gradient_accumulation_steps),
            "adapter": self._adapter(message) if message.HasField("adapter") else None,
            "base_weights": self._base(message) if message.HasField("base_weights") else None,
            "states": self._states(message.states),
            "kernels": self._kernels(message),
            "checkpoint_policy": self._checkpoints(message),
            "preference": self._preference(message) if message.HasField("preference") else None,
        }
        return values if len(self.problems) == before else None

    def _optimizer(self, message: pb.Optimizer, accumulation_steps: int) -> Optimizer | None:
        name = message.name
        if name not in optimizers():
            self._wrong("optimizer.name", one_of("optimizer", name, optimizers()))
            return None
        kind = optimizers()[name]
        step = STEPS.get(message.step, kind.steps[0])
        if step not in kind.steps:
            self._wrong(
                "optimizer.step", f"{name!r} has no {step!r} step; use {_quoted(kind.steps)}"
            )
        if not 0 <= message.rank <= MAX_RANK:
            self._wrong("optimizer.rank", f"must be from 0 to {MAX_RANK:,}, not {message.rank}")
        if message.in_backward and accumulation_steps > 1:
            self._wrong(
                "optimizer.in_backward",
                "a step in the backward pass cannot wait for gradients to accumulate; "
                "set gradient_accumulation_steps to 1",
            )
        rank = message.rank or DEFAULT_RANK
        return Optimizer(name, step, rank=rank, in_backward=message.in_backward)

    @staticmethod
    def _default_tokens(method: str) -> int:
        per_block = method in gated_prompts.METHODS
        return DEFAULT_BLOCK_PROMPT_TOKENS if per_block else DEFAULT_VIRTUAL_TOKENS

    def _adapter(self, training: pb.Training) -> Adapter | None:
        message = training.adapter
        section = self._section(
            "adapter",
            models.AdapterSection,
            {
                "method": message.method,
                "rank": message.rank or default_rank(message.method),
                "dropout": message.dropout,
                "dtype": message.dtype or "fp32",
                "virtual_tokens": message.virtual_tokens or self._default_tokens(message.method),
            },
        )
        targets = self._names("adapter.targets", adapter_targets, message.targets, message.method)
        modules = self._names(
            "adapter.trained_modules", trained_modules, message.trained_modules, message.method
        )
        if section is None or targets is None or modules is None:
            return None
        checkpointed = training.activation_checkpointing > pb.ACTIVATION_CHECKPOINTING_NONE
        if section.method == "prefix-tuning" and checkpointed:
            self._wrong(
                "adapter.method",
                "a checkpointed block takes no cache, which is where PEFT puts a prefix; turn "
                "activation_checkpointing off or use 'prompt-tuning'",
            )
        return Adapter(**section.model_dump(), targets=targets, trained_modules=modules)

    def _names(self, field: str, read: Any, names: Iterable[str], method: str) -> Any:
        try:
            return read(names, method)
        except UnknownTarget as unknown:
            self._wrong(field, one_of("target", unknown.name, unknown.known))
            return None

    def _base(self, message: pb.Training) -> BaseWeights | None:
        base = message.base_weights
        section = self._section(
            "base_weights",
            models.BaseWeightsSection,
            {
                "format": base.format,
                "group_size": base.group_size,
                "double_quantization": base.double_quantization,
                "upcast_others": base.upcast_others,
                "quantized_head": base.quantized_head,
                "keeps_inputs": base.keeps_inputs,
                "quantized_experts": base.quantized_experts,
            },
        )
        if section is None:
            return None
        if not message.HasField("adapter"):
            self._wrong(
                "base_weights",
                f"{base.format!r} weights are frozen; say which adapter is trained over them",
            )
        if base.double_quantization and base.format not in ("nf4", "fp4"):
            self._wrong(
                "base_weights.double_quantization", "goes with the formats 'nf4' and 'fp4' alone"
            )
        if base.quantized_experts and base.format in ("fp32", "bf16", "fp16"):
            self._wrong("base_weights.quantized_experts", f"{base.format!r} quantises nothing")
        return BaseWeights(**section.model_dump())

    def _states(self, message: pb.StateTypes) -> StateTypes:
        section = self._section(
            "states",
            models.StatesSection,
            {
                "master_weights": message.master_weights or None,
                "gradients": message.gradients or None,
                "optimizer_state": message.optimizer_state or None,
                "moving_average": message.moving_average or None,
            },
        )
        if section is None:
            return StateTypes()
        average = None if section.moving_average == "none" else section.moving_average
        return StateTypes(**{**section.model_dump(), "moving_average": average})

    def _kernels(self, training: pb.Training) -> Kernels:
        message = training.kernels
        if message.loss == "tiled" and training.preference.method not in COMPARING:
            self._wrong(
                "kernels.loss",
                f"'tiled' is how trl takes the log-probabilities of {', '.join(COMPARING)}; state"
                " such a preference.method, or use 'fused-linear', 'chunked' or 'native'",
            )
        section = self._section(
            "kernels",
            models.KernelsSection,
            {
                "loss": message.loss or None,
                "loss_chunk_tokens": message.loss_chunk_tokens,
                "norm": message.norm or None,
                "mlp": message.mlp or None,
                "rope": message.rope or None,
                "compile": message.compile or "none",
                "recurrence": message.recurrence or None,
            },
        )
        return Kernels() if section is None else Kernels(**section.model_dump())

    def _checkpoints(self, message: pb.Training) -> CheckpointPolicy:
        policy = message.checkpoint_policy
        section = self._section(
            "checkpoint_policy",
            models.CheckpointSection,
            {
                "every_layers": policy.every_layers or 1,
                "selective": policy.selective or "matmuls",
                "offload": policy.offload,
            },
        )
        kind = message.activation_checkpointing
        if kind <= pb.ACTIVATION_CHECKPOINTING_NONE and (policy.every_layers > 1 or policy.offload):
            self._wrong(
                "checkpoint_policy", "nothing is checkpointed: set activation_checkpointing"
            )
        if policy.selective and kind != pb.ACTIVATION_CHECKPOINTING_SELECTIVE:
            self._wrong("checkpoint_policy.selective", "needs activation_checkpointing 'selective'")
        return CheckpointPolicy() if section is None else CheckpointPolicy(**section.model_dump())

    def _preference(self, message: pb.Training) -> Preference | None:
        asked, adapted = message.preference, message.HasField("adapter")
        compares = asked.method in COMPARING
        usual = ("adapter-off" if adapted else "model") if compares else "none"
        section = self._section(
            "preference",
            models.PreferenceSection,
            {"method": asked.method, "reference": asked.reference or usual},
        )
        if section is None:
            return None
        field, reference = "preference.reference", section.reference
        if reference == "adapter-off" and not adapted:
            self._wrong(field, "'adapter-off' needs an adapter; use 'model' or 'precomputed'")
        if compares and reference == "none":
            self._wrong(field, f"{section.method!r} compares with a reference; use {usual!r}")
        if not compares and reference != "none":
            self._wrong(field, f"{section.method!r} has no reference; use 'none'")
        return Preference(**section.model_dump())

    def _section(self, path: str, model: type[SectionT], values: dict[str, Any]) -> SectionT | None:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            self.problems += from_pydantic(error, f"{self.path}.{path}")
            return None

    def _wrong(self, field: str, description: str) -> None:
        self.problems.append(Violation(f"{self.path}.{field}", description))


def _quoted(words: Iterable[str]) -> str:
    return " or ".join(repr(word) for word in words)
