"""Where a training run keeps its states: sharded over ranks, in host memory, on a local disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sizewright_server.estimation.layout import OffloadTarget
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.workload import Layout, Training, Workload
from sizewright_server.planning.changes import Change, Form, Rule, with_run

PATH = "workload.training.parallelism"
#: ZeRO stage in which all model states are sharded.
PARAMETERS_SHARDED = 3


def _training(workload: AnyWorkload) -> Training | None:
    if isinstance(workload, Workload) and isinstance(workload.run, Training):
        return workload.run
    return None


def _sharding(workload: AnyWorkload) -> Iterator[Form]:
    """An explicit data-parallel layout whose states are whole on each rank, sharded."""
    run = _training(workload)
    layout = None if run is None else run.layout
    if layout is None or layout.dp == 1 or layout.zero >= PARAMETERS_SHARDED or layout.pp > 1:
        return
    if layout.sharding == "megatron" or layout.offload != "none":
        return
    if layout.zero < PARAMETERS_SHARDED - 1 and layout.tp * layout.cp * layout.ep == 1:
        yield _laid_out(workload, layout, replace(layout, zero=2, sharding="deepspeed"))
    if layout.ep == 1:
        yield _laid_out(workload, layout, replace(layout, zero=3, sharding="fsdp2"))


def _optimizer_offload(workload: AnyWorkload) -> Iterator[Form]:
    yield from _offload(workload, ("optimizer", "optimizer-and-parameters"))


def _nvme_offload(workload: AnyWorkload) -> Iterator[Form]:
    yield from _offload(workload, ("nvme", "nvme-with-parameters"))


def _offload(workload: AnyWorkload, targets: tuple[OffloadTarget, ...]) -> Iterator[Form]:
    run = _training(workload)
    if run is None or run.offload != "none" or run.optimizer.in_backward:
        return  # The step on the CPU waits until all gradients are there.
    for target in targets:
        if run.base_weights is not None and "parameters" in target:
            continue  # Quantised weights are not DeepSpeed's to move.
        if run.layout is None:
            yield with_run(workload, "parallelism.offload", "none", target, offload=target)
            continue
        moved = _with_offload(run.layout, target)
        if moved is not None:
            yield _laid_out(workload, run.layout, moved)


def _with_offload(layout: Layout, target: OffloadTarget) -> Layout | None:
    """An explicit layout with its states elsewhere; None where its library cannot."""
    if layout.offload != "none" or layout.pp > 1 or layout.ep > 1:
        return None
    if layout.sharding == "megatron":
        return replace(layout, offload=target) if target == "optimizer" else None
    if layout.sharding in ("fsdp1", "fsdp2"):
        whole = target == "optimizer-and-parameters"
        return replace(layout, offload=target) if whole else None
    if layout.tp * layout.cp > 1:
        return None
    needed = 2 if target == "optimizer" else PARAMETERS_SHARDED
    zero = max(layout.zero, needed)
    return replace(layout, zero=zero, sharding="deepspeed", offload=target)


def _laid_out(workload: AnyWorkload, before: Layout, after: Layout) -> Form:
    """The workload under another explicit layout, with what of it changed."""
    assert isinstance(workload, Workload)
    made, _ = with_run(workload, "parallelism", "", "", layout=after)
    names = {"offload": "offload", "zero": "zero", "sharding": "implementation"}
    changes = tuple(
        Change(f"{PATH}.{path}", str(getattr(before, name)), str(getattr(after, name)))
        for name, path in names.items()
        if getattr(before, name) != getattr(after, name)
    )
    return made, changes


PLACEMENT: dict[str, Rule] = {
    "sharding": _sharding,
    "optimizer-offload": _optimizer_offload,
    "nvme-offload": _nvme_offload,
}
