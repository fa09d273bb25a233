"""Prepares any workload: a network for GPUs, or a fit for a host."""

from __future__ import annotations

from typing import TypeAlias

from sizewright_server.estimation.classical.prepared import FitWorkload, PreparedFit
from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.workload import Workload

AnyWorkload: TypeAlias = Workload | FitWorkload
AnyPrepared: TypeAlias = PreparedWorkload | PreparedFit


def prepare_any(workload: AnyWorkload) -> AnyPrepared:
    """Reads the model or the estimator once. Raises UnsupportedWorkload with every reason."""
    return PreparedFit(workload) if isinstance(workload, FitWorkload) else prepare(workload)
