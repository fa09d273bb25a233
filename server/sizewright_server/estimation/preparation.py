"""Prepares any workload: a network for GPUs, a Keras model, or a fit for a host."""

from __future__ import annotations

from typing import TypeAlias

from sizewright_server.estimation.classical.cpu_network import CpuWorkload, PreparedCpu
from sizewright_server.estimation.classical.prepared import FitWorkload, PreparedFit
from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.keras.prepared import PreparedKeras
from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.workload import Workload

AnyWorkload: TypeAlias = Workload | FitWorkload | KerasWorkload | CpuWorkload
AnyPrepared: TypeAlias = PreparedWorkload | PreparedFit | PreparedKeras | PreparedCpu


def prepare_any(workload: AnyWorkload) -> AnyPrepared:
    """Reads the model or the estimator once. Raises UnsupportedWorkload with every reason."""
    if isinstance(workload, FitWorkload):
        return PreparedFit(workload)
    if isinstance(workload, KerasWorkload):
        return PreparedKeras(workload)
    if isinstance(workload, CpuWorkload):
        return PreparedCpu(workload)
    return prepare(workload)
