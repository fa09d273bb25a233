"""How fast a kind of node computes, reads and sends, at one end of the bands.

The shares of the peaks that a job reaches, with their sources: `data/throughput.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sizewright_catalog.speeds import Speed
from sizewright_server.estimation.data_files import data_of
from sizewright_server.planning.hours import NEVER
from sizewright_server.planning.kinds import NodeKind

#: Ends of a band: `low` is the slow one.
SLOW, LIKELY, FAST = "low", "value", "high"
#: Number types of fewer than 16 bits, in which linear layers alone are multiplied.
NARROW = frozenset({"fp8", "mxfp8", "nvfp4"})
#: Bytes of a megabit.
MEGABIT = 10**6 / 8
#: GPUs of the largest common node.
WHOLE_NODE = 8


@cache
def bands() -> dict[str, Any]:
    """Shares and speeds with their bands: `data/throughput.json`."""
    table: dict[str, Any] = data_of("sizewright_server.planning", "throughput")
    return table


def pcie_band(generation: int) -> dict[str, Any]:
    """Bytes a second over PCIe; of a generation that is not in the table, those of the nearest."""
    band: dict[str, Any] = bands()["pcie_bytes_per_second"][str(min(max(generation, 3), 5))]
    return band


@dataclass(frozen=True, slots=True)
class MachineSpeed:
    """A kind of node at one end of the bands."""

    speed: Speed
    kind: NodeKind
    at: str

    def compute(self, flops: float, number: str) -> float:
        """Seconds of matrix products; never where the device has no such peak."""
        peak = self.speed.flops.get(number)
        if not peak or self.kind.device is None:
            return NEVER
        shares = bands()["model_flops_utilization"]
        share = shares.get(self.kind.device.architecture.split()[0], shares["other"])[self.at]
        if number in NARROW:
            share *= bands()["narrow_number_share"][self.at]
        return float(flops / (peak * self.kind.slice * share))

    def read(self, size_bytes: float) -> float:
        """Seconds to read bytes of device memory."""
        share = bands()["memory_bandwidth_utilization"][self.at]
        bandwidth = self.speed.memory_bytes_per_second * self.kind.slice * share
        return float(size_bytes / bandwidth) if bandwidth else NEVER

    def together(self, stride: int) -> int:
        """Ranks of a group on one node, where every `stride`-th rank is of the group."""
        return max(self.kind.per_node // stride, 1)

    def gathered(self, size_bytes: float, ranks: int, together: int) -> float:
        """Seconds in which each rank of a group receives bytes that go round all of it.

        `together` of the ranks are on a node. A byte crosses between two nodes once for all ranks
        on them, so these share the network's whole bandwidth as if it were each one's own (bus
        bandwidth, nccl-tests PERFORMANCE.md); inside a node it goes over the links.
        """
        if ranks == 1:
            return 0.0
        bandwidth = self.links
        if ranks > together:
            network = self.network * together
            bandwidth = network if together == 1 else min(network, bandwidth)
        return size_bytes / bandwidth

    def exchanged(self, size_bytes: float, ranks: int, together: int) -> float:
        """Seconds in which each rank of a group sends bytes, to each other rank its own.

        What goes to ranks of other nodes has the network's share of one GPU alone.
        """
        if ranks == 1:
            return 0.0
        outside = size_bytes * max(ranks - together, 0) / (ranks - 1)
        return max((size_bytes - outside) / self.links, outside / self.network)

    def passed_on(self, size_bytes: float, *, inside: bool) -> float:
        """Seconds to send bytes to one other GPU, inside a node or outside it."""
        return size_bytes / (self.links if inside else self.network)

    @property
    def links(self) -> float:
        """Bytes a second between GPUs of one node."""
        if self.speed.link_bytes_per_second:
            return float(self.speed.link_bytes_per_second * bands()["link_share"][self.at])
        return float(pcie_band(self.speed.pcie_generation)[self.at])

    @property
    def network(self) -> float:
        """Bytes a second and GPU between nodes: a share of what is stated, else a wider band."""
        kind = self.kind
        if kind.network_mbps is not None:
            share = bands()["network_share"]["ethernet" if kind.fabric == "ethernet" else "fabric"]
            return float(kind.network_mbps * MEGABIT / kind.per_node * share[self.at])
        linked = kind.per_node >= WHOLE_NODE and self.speed.link_bytes_per_second
        band = "linked-eight" if linked and not kind.fabric else "other"
        network = bands()["network_bytes_per_second_per_gpu"]
        return float(network[band if kind.connected else "unknown"][self.at])
