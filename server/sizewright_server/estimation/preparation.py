"""Prepares any workload: a network for GPUs, a Keras model, or a fit for a host."""

from __future__ import annotations

from typing import TypeAlias

from sizewright_server.estimation.classical.cpu_network import CpuWorkload, PreparedCpu
from sizewright_server.estimation.classical.prepared import FitWorkload, PreparedFit
from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.frontend import families
from sizewright_server.estimation.keras.prepared import PreparedKeras
from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.serving.families import is_served
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.serving.run import ServingRun, ServingWorkload
from sizewright_server.estimation.workload import Inference, Workload
from sizewright_server.estimation.wrappers import is_lowered

AnyWorkload: TypeAlias = Workload | FitWorkload | KerasWorkload | CpuWorkload | ServingWorkload
AnyPrepared: TypeAlias = (
    PreparedWorkload | PreparedFit | PreparedKeras | PreparedCpu | PreparedServing
)


def prepare_any(workload: AnyWorkload) -> AnyPrepared:
    """Reads the model or the estimator once. Raises UnsupportedWorkload with every reason.

    An inference of a model the tape does not lower is estimated from its tensors, as serving is.
    """
    if isinstance(workload, FitWorkload):
        return PreparedFit(workload)
    if isinstance(workload, KerasWorkload):
        return PreparedKeras(workload)
    if isinstance(workload, CpuWorkload):
        return PreparedCpu(workload)
    if isinstance(workload, ServingWorkload):
        return PreparedServing(workload)
    try:
        return prepare(workload)
    except UnsupportedWorkload:
        served = as_serving(workload)
        if served is None:
            raise
        return PreparedServing(served)


def as_serving(workload: Workload) -> ServingWorkload | None:
    """The same inference for the light front end; None where that does not read it either."""
    run, config = workload.run, workload.model.config
    decodes = isinstance(run, Inference) and run.input_tokens > 0 and run.image_size is None
    if not isinstance(run, Inference) or not decodes or workload.model.head is not None:
        return None
    named = config.get("model_type")
    if named in families() or is_lowered(named, training=False) or not is_served(named):
        return None
    served = ServingRun(
        engine=run.engine,
        weight_type=run.weight_dtype,
        kv_type=run.kv_dtype,
        compute_type=run.weight_dtype,
        batch=run.batch,
        input_tokens=run.input_tokens,
        new_tokens=run.new_tokens,
        cache=run.cache,
        logits_to_keep=run.logits_to_keep,
        attention=run.attention,
        layout=run.layout,
    )
    return ServingWorkload(
        workload.model,
        served,
        workload.name,
        workload.host,
        workload.kernel_loading,
        workload.cuda,
    )
