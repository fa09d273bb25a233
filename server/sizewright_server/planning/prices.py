"""What a technique takes in seconds of moving bytes, in sentences with the workload's numbers."""

from __future__ import annotations

from sizewright_server.estimation.estimator import PreparedWorkload
from sizewright_server.estimation.offload import placement
from sizewright_server.estimation.workload import Layout, Training
from sizewright_server.planning.machine_speed import FAST, SLOW
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.offload_time import HALF_BYTES, Moved, disks
from sizewright_server.planning.techniques import Applied

GIB = 2**30
OFFLOADS = ("optimizer-offload", "nvme-offload")


def details_of(
    steps: tuple[Applied, ...], prepared: Prepared, layout: Layout, ranks: int
) -> tuple[str, ...]:
    """Sentences on what techniques take of a workload that has them already.

    `ranks` is the number of GPUs of a node.
    """
    if not any(step.name in OFFLOADS for step in steps):
        return ()
    run = getattr(prepared.workload, "run", None)
    if not isinstance(prepared, PreparedWorkload) or not isinstance(run, Training):
        return ()
    moved = Moved(run.optimizer.name, prepared.trainable_parameter_count, layout, ranks)
    if placement(layout).weights:
        return (_disk(moved) if moved.on_disk else _memory(moved),)
    weights = int(prepared.parameter_count * HALF_BYTES / max(layout.shard_ranks, 1))
    fetched = _fetched(weights, run, on_disk=moved.on_disk)
    return (_disk(moved) if moved.on_disk else _memory(moved), fetched)


def _fetched(weights_bytes: int, run: Training, *, on_disk: bool) -> str:
    """What parameters that left the GPU cost each pass, the frozen ones too."""
    passes = 3 if run.checkpointing == "full" else 2
    way = "from NVMe and over PCIe" if on_disk else "over PCIe"
    return (
        f"Every micro-batch fetches {weights_bytes / GIB:,.1f} GiB of weights {way} for each GPU, "
        f"{passes} times."
    )


def _disk(moved: Moved) -> str:
    fast, slow = moved.disk_seconds(FAST), moved.disk_seconds(SLOW)
    return (
        f"A node keeps {moved.node_state_bytes / GIB:,.1f} GiB of optimizer state on a local NVMe "
        f"drive, which every step reads and writes back: {fast:,.1f} to {slow:,.1f} s on one drive "
        f"({_said_by('nvme_read')})."
    )


def _memory(moved: Moved) -> str:
    rates = disks()["cpu_optimizer"]
    fast, slow = moved.on_node / rates[FAST], moved.on_node / rates[SLOW]
    return (
        f"Every optimizer step moves {moved.rank_pcie_bytes / GIB:,.1f} GiB of each GPU over PCIe, "
        f"and the CPU steps {moved.on_node / 1e9:,.2g} billion parameters of a node in "
        f"{fast:,.1f} to {slow:,.1f} s ({_said_by('cpu_optimizer')})."
    )


def _said_by(name: str) -> str:
    """Whose figures a band is made of, and how old the newest is."""
    band = disks()[name]
    return f"by {band['named']}, {band['as_of']}"
