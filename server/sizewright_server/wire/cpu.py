"""PyTorch networks on the CPU: a model or a list of layers, and what does not apply there."""

from __future__ import annotations

from dataclasses import replace

from sizewright.v1 import workload_pb2 as pb
from sizewright_server.estimation.classical.cpu_network import CpuWorkload
from sizewright_server.estimation.classical.layer_list import Layer, network_from_layers
from sizewright_server.estimation.classical.network_stages import Network
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.workload import (
    Dataset,
    HostConditions,
    Inference,
    ModelSource,
    Training,
)

#: A list is written out layer by layer; longer ones are of no framework.
MOST_LAYERS = 20_000
CPU_PRECISIONS = ("fp32", "bf16", "bf16-mixed")


def read_layers(message: pb.LayerList, problems: list[Violation], path: str) -> Network | None:
    """The network of `model.layers`; None when anything was wrong."""
    layers: list[Layer] = []
    for at, layer in enumerate(message.layers):
        times = layer.repeat or 1
        if not 1 <= times <= MOST_LAYERS or len(layers) + times > MOST_LAYERS:
            words = f"must make at most {MOST_LAYERS:,} layers, not {times:,} more"
            problems.append(Violation(f"{path}.model.layers.layers.{at}.repeat", words))
            return None
        layers += [Layer(layer.kind, dict(layer.dimensions))] * times
    try:
        return network_from_layers(layers)
    except UnsupportedWorkload as error:
        problems += error.violations
        return None


def cpu_workload(
    message: pb.Workload,
    model: ModelSource | Network,
    run: Training | Inference,
    dataset: Dataset | None,
    host: HostConditions,
    problems: list[Violation],
) -> CpuWorkload | None:
    """The workload of one process; None when it asks for what only GPUs do."""
    section = "training" if isinstance(run, Training) else "inference"
    precision = run.precision if isinstance(run, Training) else run.weight_dtype
    if precision not in CPU_PRECISIONS:
        name = "precision" if isinstance(run, Training) else "weight_dtype"
        words = f"{precision!r} is not of the CPU; use {', '.join(CPU_PRECISIONS)}"
        problems.append(Violation(f"workload.{section}.{name}", words))
        return None
    if run.layout is not None and run.layout.gpus > 1:
        words = "must be one process on the CPU"
        problems.append(Violation(f"workload.{section}.parallelism", words))
        return None
    if isinstance(run, Training) and not message.training.optimizer.step:
        # PyTorch's own default is foreach on GPUs alone.
        run = replace(run, optimizer=replace(run.optimizer, step="for-loop"))
    return CpuWorkload(model, run, message.name, dataset, host)
