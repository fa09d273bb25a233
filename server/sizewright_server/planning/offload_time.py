"""Time of an optimizer step whose state lies in host memory or on a disk.

Gradients go down and 16-bit weights come back over PCIe, the CPU runs the step, and from NVMe every
state is read and written back (Ren et al. 2021, ZeRO-Offload; Rajbhandari et al. 2021,
ZeRO-Infinity). Nothing of it is overlapped with the passes, as DeepSpeed does by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.host_states import state_width
from sizewright_server.estimation.optimizers import FP32, optimizers
from sizewright_server.estimation.workload import Layout

#: Gradients and weights cross PCIe in the 16-bit type of the computation.
HALF_BYTES = 2


@cache
def disks() -> dict[str, Any]:
    """Bands of what stands in for memory: `data/disks.json`."""
    table: dict[str, Any] = data_of("sizewright_server.planning", "disks")
    return table


@dataclass(frozen=True, slots=True)
class Moved:
    """What an optimizer step moves: `trained` parameters in all, over the ranks of a layout."""

    optimizer: str
    trained: int
    layout: Layout
    ranks_per_node: int

    @property
    def on_rank(self) -> float:
        """Parameters whose state a rank owns."""
        return self.trained / max(self.layout.gpus // max(self.layout.cp, 1), 1)

    @property
    def on_node(self) -> float:
        """The same of a node, whose drive and cores its ranks share."""
        return self.on_rank * min(self.ranks_per_node, self.layout.gpus)

    @property
    def node_state_bytes(self) -> int:
        """Master weights and optimizer state of a node, in fp32."""
        return int(self.on_node * (FP32 + state_width(optimizers()[self.optimizer], FP32)))

    @property
    def rank_pcie_bytes(self) -> int:
        """Gradients down and weights back, of a rank."""
        return int(self.on_rank * 2 * HALF_BYTES)

    def seconds(self, at: str, pcie_bytes_per_second: float) -> float:
        """Seconds of a step at one end of the bands; `low` is the slow one."""
        moved = self.rank_pcie_bytes / pcie_bytes_per_second
        stepped = self.on_node / float(disks()["cpu_optimizer"][at])
        return moved + stepped + (self.disk_seconds(at) if self.on_disk else 0.0)

    @property
    def on_disk(self) -> bool:
        """Whether the state lies on NVMe."""
        return self.layout.offload.startswith("nvme")

    def disk_seconds(self, at: str) -> float:
        """Seconds to read a node's states and write them back, on one drive."""
        return float(2 * self.node_state_bytes / disks()["nvme_read"][at])
