"""Maps a ground-truth case to a workload. Reads `workload` and the targets' kind alone."""

from __future__ import annotations

from collections.abc import Callable

from tests.accuracy.case import Case, Mapped, Unmapped
from tests.accuracy.host_cases import estimate_host
from tests.accuracy.serving_cases import map_serving
from tests.accuracy.trace_cases import map_trace
from tests.accuracy.training_cases import map_training

from sizewright_server.estimation.memory import MemoryEstimate

#: Host cases run what no workload message describes, such as one read of a file: they are
#: estimated at once.
MAPPERS: dict[str, Callable[[Case], Mapped | MemoryEstimate]] = {
    "host": estimate_host,
    "trace": map_trace,
    "training": map_training,
    "fits": map_training,
    "serving": map_serving,
}


def map_case(case: Case) -> Mapped | MemoryEstimate:
    """The workload of a case, or its estimate. Raises Unmapped with the reason."""
    mapper = MAPPERS.get(case["kind"])
    if mapper is None:
        category = case.get("category") or case["workload"].get("category")
        raise Unmapped(f"{case['kind']}: {category} jobs are not built yet")
    return mapper(case)
