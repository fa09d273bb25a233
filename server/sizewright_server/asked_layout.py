"""The layout an estimate is asked for."""

from __future__ import annotations

from dataclasses import replace

from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.preparation import AnyPrepared
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.serving.run import ServingRun, ServingWorkload
from sizewright_server.estimation.workload import Inference, Layout, Training, Workload
from sizewright_server.questions import EstimateQuestion

DEFAULT_GPUS_PER_NODE = 8


def asked_layout(prepared: AnyPrepared, question: EstimateQuestion) -> tuple[Layout, int]:
    """The layout to estimate: the explicit one, else the first for the asked GPUs."""
    if isinstance(question.workload, KerasWorkload) and question.workload.on_gpu:
        replicas = question.gpus or question.workload.replicas or 1
        return Layout(dp=replicas), question.gpus_per_node or DEFAULT_GPUS_PER_NODE
    if not isinstance(question.workload, Workload | ServingWorkload):
        return Layout(), 1
    run = question.workload.run
    per_node = question.gpus_per_node or DEFAULT_GPUS_PER_NODE
    gpus = question.gpus or _gpus_of(run)
    found = prepared.layouts_for(gpus, per_node)
    if found:
        return found[0], per_node
    kind = "training" if isinstance(run, Training) else "inference"
    words = f"has no layout on {gpus} GPUs with {per_node} a node"
    raise UnsupportedWorkload(Violation(f"workload.{kind}.parallelism", words))


def _gpus_of(run: Training | Inference | ServingRun) -> int:
    return 1 if run.layout is None else replace(run.layout, dp=max(run.layout.dp, 1)).gpus
