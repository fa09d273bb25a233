"""Kinds of node: what a layout's memory is compared with, once for all offers of the kind."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sizewright_catalog.values import Device, InstanceType, Machine
from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.runtime import LOADINGS, DeviceOverhead, KernelLoading
from sizewright_server.estimation.serving.devices import device_class
from sizewright_server.estimation.serving.run import ANY_DEVICE, ServingDevice
from sizewright_server.planning.conditions import NodeConditions
from sizewright_server.planning.devices import overhead_of, served_on, unsupported_reason

#: More nodes than anyone asks for: offers are not counted.
UNCOUNTED = 2**31
#: The columns of a number each.
COLUMNS = (
    "per_node",
    "whole",
    "count",
    "unified",
    "connected",
    "local_disk_bytes",
    "gpu_usable_bytes",
    "host_usable_bytes",
)
_NO_DEVICE = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class NodeKind:
    """A kind of node. `slice` below 1 is a share of one device, good for one rank alone.

    `device` None is a node whose GPUs, if it has any, are not used: one rank, host memory alone.
    With `unified` the GPUs take from the host's memory, so that they count there too. `connected`
    says whether it is known how nodes of the kind reach each other, `network_mbps` how fast.
    `local_disk_bytes` is None where nobody says, and where the job needs none.
    """

    device: Device | None
    per_node: int
    slice: float
    gpu_usable_bytes: int
    host_usable_bytes: int
    count: int | None = None
    unified: bool = False
    connected: bool = True
    network_mbps: int | None = None
    fabric: str = ""
    local_disk_bytes: int | None = None


class KindColumns:
    """Kinds as columns.

    `overheads` are by how CUDA loads kernels; their axes are none, a pair's, a group's; low, best,
    high; kind.
    """

    def __init__(self, kinds: Sequence[NodeKind]) -> None:
        self.kinds = tuple(kinds)
        self._classes: dict[str, tuple[Column, tuple[ServingDevice, ...]]] = {}
        self.per_node = _integers([kind.per_node for kind in kinds])
        self.whole: NDArray[np.bool_] = np.array([k.slice >= 1 for k in kinds], dtype=np.bool_)
        self.count = _integers([kind.count or UNCOUNTED for kind in kinds])
        self.unified = _integers([int(kind.unified) for kind in kinds])
        self.local_disk_bytes = _integers([kind.local_disk_bytes or 0 for kind in kinds])
        self.connected: NDArray[np.bool_] = np.array(
            [kind.connected for kind in kinds], dtype=np.bool_
        )
        self.gpu_usable_bytes = _integers([kind.gpu_usable_bytes for kind in kinds])
        self.host_usable_bytes = _integers([kind.host_usable_bytes for kind in kinds])
        self.overheads = {loading: _overheads(kinds, loading) for loading in LOADINGS}

    @property
    def largest_bytes(self) -> Column:
        """Usable bytes of a kind's GPU, or of its host where no GPU is used."""
        return np.where(self.gpu_usable_bytes > 0, self.gpu_usable_bytes, self.host_usable_bytes)

    def serving_classes(self, engine: str) -> tuple[Column, tuple[ServingDevice, ...]]:
        """Each kind's class of GPU as an engine sees it, by number, and the classes."""
        if engine not in self._classes:
            found = [serving_class(kind.device, engine) for kind in self.kinds]
            classes = tuple(dict.fromkeys(found))
            numbers = {one: number for number, one in enumerate(classes)}
            self._classes[engine] = _integers([numbers[one] for one in found]), classes
        return self._classes[engine]

    def extended(self, more: Sequence[NodeKind]) -> KindColumns:
        """These kinds and some more behind them."""
        if not more:
            return self
        made, tail = copy(self), KindColumns(more)
        made._classes = {}
        made.kinds = (*self.kinds, *tail.kinds)
        for name in COLUMNS:
            setattr(made, name, np.concatenate((getattr(self, name), getattr(tail, name))))
        made.overheads = {
            loading: np.concatenate((mine, tail.overheads[loading]), axis=2)
            for loading, mine in self.overheads.items()
        }
        return made


@lru_cache(maxsize=1024)
def serving_class(device: Device | None, engine: str) -> ServingDevice:
    """The class of a kind's GPU as an engine sees it."""
    return ANY_DEVICE if device is None else device_class(served_on(device), engine)


def host_kind(usable_bytes: int, nominal_bytes: int, conditions: NodeConditions) -> NodeKind:
    """A node of which the host memory alone is used."""
    return NodeKind(None, 1, 1.0, 0, conditions.left_bytes(usable_bytes, nominal_bytes))


def node_kind(
    target: InstanceType | Machine, conditions: NodeConditions, *, gpu: bool = True
) -> NodeKind | str:
    """The kind of node a target is, or why nothing runs on it. `gpu` False: host memory alone."""
    if not gpu:
        return host_kind(target.host_usable_bytes, target.host_nominal_bytes, conditions)
    if isinstance(target, InstanceType) and target.unsizable_reason:
        return f"{target.name} cannot be sized: {target.unsizable_reason}"
    if target.device is None or target.device_count == 0:
        return f"{target.name} has no GPU"
    reason = unsupported_reason(target.device)
    if reason:
        return reason
    host = conditions.left_bytes(target.host_usable_bytes, target.host_nominal_bytes)
    return NodeKind(
        target.device,
        target.device_count,
        target.slice,
        target.gpu_usable_bytes,
        host,
        unified=isinstance(target, Machine) and target.unified_memory,
        # Machines of one owner are taken to stand together.
        connected=isinstance(target, Machine) or bool(target.network and target.network.fabric),
        network_mbps=target.network.mbps if target.network else None,
        fabric=target.network.fabric if target.network else "",
        local_disk_bytes=target.local_disk_bytes if conditions.disk else None,
    )


def overhead_bounds(overhead: DeviceOverhead) -> tuple[tuple[int, int, int], ...]:
    """Bytes without collectives, of a pair's communicator, and of a larger group's."""
    fixed = overhead.total(0, 1)
    return tuple(_triple(size) for size in (fixed, overhead.pair.size, overhead.group.size))


def _overheads(kinds: Sequence[NodeKind], loading: KernelLoading | None) -> Column:
    bounds = [_bounds(kind.device, loading) for kind in kinds]
    return np.moveaxis(np.array(bounds, dtype=np.int64).reshape(len(kinds), 3, 3), 0, 2)


@lru_cache(maxsize=1024)
def _bounds(
    device: Device | None, loading: KernelLoading | None
) -> tuple[tuple[int, int, int], ...]:
    return (_NO_DEVICE,) * 3 if device is None else overhead_bounds(overhead_of(device, loading))


def _integers(values: list[int]) -> Column:
    return np.array(values, dtype=np.int64)


def _triple(size: ByteRange) -> tuple[int, int, int]:
    return (size.low_bytes, size.best_bytes, size.high_bytes)
