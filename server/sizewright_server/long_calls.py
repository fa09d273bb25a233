"""Which requests take many times as long as most, so that short ones do not wait for them."""

from __future__ import annotations

from sizewright.v1 import sizing_service_pb2

#: Beyond so many nodes a search or a check takes longer than health checks may wait: 0.1 s on 100
#: nodes, 2 s on 1,024 (measured with DeepSeek-V3 in full training).
MANY_NODES = 64


def is_a_study(request: sizing_service_pb2.RecommendRequest) -> bool:
    """Whether changes of the workload are searched as well, or very many nodes."""
    changes = request.advise or len(request.techniques) > 0
    return changes or request.constraints.max_nodes > MANY_NODES


def is_a_long_check(request: sizing_service_pb2.CheckFitRequest) -> bool:
    """Whether changes of the workload are tried as well, or very many nodes."""
    return request.advise or request.node_count > MANY_NODES
