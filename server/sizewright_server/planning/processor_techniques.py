"""The same work without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sizewright_server.estimation.classical.cpu_network import CpuWorkload
from sizewright_server.estimation.classical.prepared import FitWorkload
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.workload import Inference, Training, Workload
from sizewright_server.planning.changes import Change, Form, Rule
from sizewright_server.planning.data_techniques import with_job

GPU = Change("workload.accelerator", "gpu", "cpu")
#: Types of a run on the CPU by those of a GPU; others are not of the CPU.
ON_CPU = {"fp32": "fp32", "tf32": "fp32", "bf16": "bf16", "bf16-mixed": "bf16-mixed"}


def _cpu_only(workload: AnyWorkload) -> Iterator[Form]:
    """Keras models are left alone: nobody counts their operations, so nobody can compare."""
    if isinstance(workload, FitWorkload) and workload.on_gpu:
        parameters = workload.job.parameters
        name = "device" if "device" in parameters else "device_type"
        field = f"workload.model.estimator.hyper_parameters.{name}"
        change = Change(field, str(parameters[name]), "cpu")
        yield with_job(workload, change, parameters={**parameters, name: "cpu"})
    elif isinstance(workload, Workload):
        run = _run_on_cpu(workload.run)
        if run is not None:
            made = CpuWorkload(workload.model, run, workload.name, workload.dataset, workload.host)
            yield made, (GPU,)


def _run_on_cpu(run: Training | Inference) -> Training | Inference | None:
    """The run in one process on the CPU; None where it takes what only GPUs have."""
    if run.layout is not None and run.layout.gpus > 1:
        return None
    if isinstance(run, Inference):
        return replace(run, layout=None) if run.weight_dtype in ON_CPU else None
    plain = run.adapter is None and run.offload == "none" and run.precision in ON_CPU
    if not plain or run.optimizer.in_backward:
        return None
    precision: str = ON_CPU[run.precision]
    optimizer = replace(run.optimizer, step="for-loop")
    return replace(run, layout=None, precision=precision, optimizer=optimizer)  # type: ignore[arg-type]


PROCESSORS: dict[str, Rule] = {"cpu-only": _cpu_only}
