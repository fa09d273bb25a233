"""What an estimate says beside its numbers: what was not stated, and what stands in for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.expert_adapters import adapts_experts
from sizewright_server.estimation.explain_host import host_notices
from sizewright_server.estimation.idle_settings import idle_settings
from sizewright_server.estimation.memory import Notice
from sizewright_server.estimation.modeling import trl_not_stated
from sizewright_server.estimation.recurrence_checks import path_not_stated
from sizewright_server.estimation.workload import Training

if TYPE_CHECKING:
    from sizewright_server.estimation.estimator import PreparedWorkload


def notices_of(prepared: PreparedWorkload) -> tuple[Notice, ...]:
    """A notice for each thing that is not stated, not known or changes no figure."""
    workload = prepared.workload
    notices = []
    if prepared.model.generic:
        words = (
            f"model_type {prepared.model.model_type!r} is not known: it is taken as a generic "
            "transformer of its sizes, and the interval is as wide as such models were measured."
        )
        notices.append(Notice("generic-block", words))
    if prepared.model.tower:
        words = f"The vision tower of {prepared.model.model_type} is on the GPU and does not run: "
        if isinstance(workload.run, Training):
            words += (
                "text alone trains. It has no gradients and no optimizer states, but DeepSpeed and "
                "DDP make room for them where it is not frozen, which the high end of the interval "
                "has."
            )
        else:
            words += "text alone is read."
        notices.append(Notice("vision-tower-at-rest", words))
    if trl_not_stated(workload.run):
        words = (
            "Log-probabilities are taken by tiles of logits, as trl 1.16 does. The high end of the "
            "interval has releases that make all logits: training.kernels.loss says which, 'tiled' "
            "or 'native'."
        )
        notices.append(Notice("trl-release-not-stated", words))
    if workload.dataset is None:
        notices.append(
            Notice(
                "dataset-not-stated", "The dataset is not stated; its host memory is not counted."
            )
        )
    if path_not_stated(prepared.model, workload.run):
        words = (
            f"{'training.kernels' if isinstance(workload.run, Training) else 'inference'}"
            ".recurrence is not stated: the best value is that of recurrent layers "
            "in kernels of their own ('fused'), and the interval reaches to torch's operators "
            "('eager'), which run where those packages are not installed."
        )
        notices.append(Notice("recurrence-not-stated", words))
    if isinstance(workload.run, Training):
        notices += _fused_experts(prepared.model, workload.run)
    idle = idle_settings(prepared.model, workload.run)
    return (*notices, *idle, *host_notices(workload))


def _fused_experts(model: Architecture, run: Training) -> list[Notice]:
    """LoRA on all experts at once copies their weights, and takes no dropout."""
    adapter = run.adapter
    if adapter is None or not adapts_experts(model, adapter, run.modeling_code):
        return []
    words = (
        "The adapter's targets are the experts' fused weights, of which PEFT makes a copy with the "
        "adapter on it in every layer and pass, kept for the backward pass: targets of attention "
        "alone save it."
    )
    if adapter.dropout:
        words += " PEFT takes no dropout there: the figures are those without."
    return [Notice("adapters-on-fused-experts", words)]
