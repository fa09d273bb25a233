"""What the conditions on a node leave a job of its usable host memory."""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_catalog.capacity import kubelet_reserved_bytes, notebook_bytes
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.workload import HostConditions, Training


@dataclass(frozen=True, slots=True)
class NodeConditions:
    """What is beside the job on its node, and the limit of the container around it; in bytes.

    `disk` says whether the job needs local disk, so that nodes with other disks are other nodes.
    """

    kubernetes: bool = False
    beside_bytes: int = 0
    limit_bytes: int = 0
    disk: bool = False

    def left_bytes(self, usable_bytes: int, nominal_bytes: int) -> int:
        """What is left for the job, never below 0."""
        reserved = kubelet_reserved_bytes(nominal_bytes) if self.kubernetes else 0
        left = max(0, usable_bytes - reserved - self.beside_bytes)
        return min(left, self.limit_bytes) if self.limit_bytes else left


def conditions_of(workload: AnyWorkload) -> NodeConditions:
    """The conditions a workload states."""
    run = getattr(workload, "run", None)
    offload = ""
    if isinstance(run, Training):
        offload = run.offload if run.layout is None else run.layout.offload
    return host_conditions(workload.host, disk=offload.startswith("nvme"))


def host_conditions(host: HostConditions, *, disk: bool = False) -> NodeConditions:
    """The conditions on a host, for a job that needs local disk or not."""
    beside = host.other_processes_bytes + (notebook_bytes() if host.notebook else 0)
    return NodeConditions(host.kubernetes, beside, host.container_limit_bytes, disk)
