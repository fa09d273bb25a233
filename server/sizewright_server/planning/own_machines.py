"""Which of the asker's own machines a question allows.

What is asked of a node holds for them too; places, terms, names and prices are those of offers.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizewright_catalog.values import MBPS_OF_GBPS, Machine
from sizewright_server.planning.plan import Constraints, Rejection

GB = 10**9


def own_machines(
    machines: Sequence[Machine], asked: Constraints
) -> tuple[list[Machine], list[Rejection]]:
    """The machines that pass, and of each other one the first constraint it fails."""
    passing, rejections = [], []
    for machine in machines:
        failed = _failed(machine, asked)
        if failed is None:
            passing.append(machine)
        else:
            constraint, words = failed
            rejections.append(Rejection(constraint, 1, f"{machine.name} {words}."))
    return passing, rejections


def _failed(machine: Machine, asked: Constraints) -> tuple[str, str] | None:
    """Name and words of the first constraint that a machine fails."""
    device = machine.device.name if machine.device and machine.device_count else ""
    if asked.devices and device not in asked.devices:
        return "device", f"does not have {' or '.join(asked.devices)}"
    if device in asked.exclude_devices:
        return "device", f"has {device}, which is excluded"
    if asked.cpu_architectures and machine.cpu_architecture not in asked.cpu_architectures:
        return "cpu-architecture", f"has a {machine.cpu_architecture} processor"
    if machine.vcpus < asked.min_vcpus:
        return "vcpus", f"has fewer than {asked.min_vcpus} vCPUs"
    return _failed_disk(machine, asked) or _failed_network(machine, asked)


def _failed_disk(machine: Machine, asked: Constraints) -> tuple[str, str] | None:
    if not asked.min_local_disk_bytes:
        return None
    if machine.local_disk_bytes is None:
        return "local-disk-unknown", "does not say how much local disk it has"
    if machine.local_disk_bytes < asked.min_local_disk_bytes:
        least = asked.min_local_disk_bytes / GB
        return "local-disk", f"has less than {least:,.4g} GB of local disk"
    return None


def _failed_network(machine: Machine, asked: Constraints) -> tuple[str, str] | None:
    fabric = machine.network.fabric if machine.network else ""
    mbps = machine.network.mbps if machine.network else None
    if asked.fabrics and not fabric:
        return "fabric-unknown", "does not say how several of it reach each other"
    if asked.fabrics and fabric not in asked.fabrics:
        return "fabric", f"has no {' or '.join(asked.fabrics)} between nodes"
    if asked.min_network_gbps and mbps is None:
        return "network-unknown", "does not say how fast its network is"
    if mbps is not None and mbps < asked.min_network_gbps * MBPS_OF_GBPS:
        return "network", f"holds up less than {asked.min_network_gbps:g} Gbit/s between nodes"
    return None
