"""What the conditions on a node leave a job of its usable host memory."""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_catalog.capacity import kubelet_reserved_bytes, notebook_bytes
from sizewright_server.estimation.workload import HostConditions


@dataclass(frozen=True, slots=True)
class NodeConditions:
    """What is beside the job on its node, and the limit of the container around it; in bytes."""

    kubernetes: bool = False
    beside_bytes: int = 0
    limit_bytes: int = 0

    def left_bytes(self, usable_bytes: int, nominal_bytes: int) -> int:
        """What is left for the job, never below 0."""
        reserved = kubelet_reserved_bytes(nominal_bytes) if self.kubernetes else 0
        left = max(0, usable_bytes - reserved - self.beside_bytes)
        return min(left, self.limit_bytes) if self.limit_bytes else left


def conditions_of(host: HostConditions) -> NodeConditions:
    """The conditions a workload states."""
    beside = host.other_processes_bytes + (notebook_bytes() if host.notebook else 0)
    return NodeConditions(host.kubernetes, beside, host.container_limit_bytes)
