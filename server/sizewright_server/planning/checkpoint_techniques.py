"""How checkpoints are read and written, where the host holds more of them than it must."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sizewright_server.estimation.classical.cpu_network import CpuWorkload
from sizewright_server.estimation.host_states import HALF
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.states import state_widths
from sizewright_server.estimation.workload import CheckpointSave, Training, Workload
from sizewright_server.planning.changes import Change, Form, Rule

#: Ways to save in which one rank writes all.
WHOLE_SAVES = ("full", "full-weights", "half-weights")
#: Ways to load that read a whole checkpoint into memory.
WHOLE = ("torch-load", "torch-load-into")


def _safetensors(workload: AnyWorkload) -> Iterator[Form]:
    if not isinstance(workload, Workload | CpuWorkload):
        return
    before = workload.host.checkpoint_load
    if before in WHOLE:
        host = replace(workload.host, checkpoint_load="safetensors")
        change = Change("workload.host.checkpoint_load", before, "safetensors")
        yield replace(workload, host=host), (change,)


def _sharded(workload: AnyWorkload) -> Iterator[Form]:
    if isinstance(workload, Workload) and workload.host.checkpoint_save in WHOLE_SAVES:
        yield _saved(workload, "sharded")


def _weights_only(workload: AnyWorkload) -> Iterator[Form]:
    """Where one rank writes all: sharded training that is not told otherwise saves by rank."""
    if not isinstance(workload, Workload) or not isinstance(workload.run, Training):
        return
    layout = workload.run.layout
    whole = layout is not None and not layout.zero and layout.tp * layout.pp == 1
    if workload.host.checkpoint_save == "full" or (workload.host.checkpoint_save is None and whole):
        yield _saved(workload, "full-weights")


def _half_precision(workload: AnyWorkload) -> Iterator[Form]:
    """Weights in 16 bits, where one rank gathers them in 32."""
    if not isinstance(workload, Workload) or not isinstance(workload.run, Training):
        return
    layout = workload.run.layout
    library = "fsdp2" if layout is None else layout.sharding
    wide = state_widths(workload.run, library).trained > HALF
    if workload.host.checkpoint_save in ("full", "full-weights") and wide:
        yield _saved(workload, "half-weights")


def _saved(workload: Workload, after: CheckpointSave) -> Form:
    before = workload.host.checkpoint_save or "full"
    host = replace(workload.host, checkpoint_save=after)
    change = Change("workload.host.checkpoint_save", before, after)
    return replace(workload, host=host), (change,)


CHECKPOINTS: dict[str, Rule] = {
    "safetensors-checkpoint": _safetensors,
    "sharded-checkpoint": _sharded,
    "weights-only-checkpoint": _weights_only,
    "half-precision-checkpoint": _half_precision,
}
