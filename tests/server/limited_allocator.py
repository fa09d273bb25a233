"""PyTorch's caching allocator on a device of a limited size, as far as running out goes.

Where a request finds no free block and no room for a segment, every segment that is wholly free
goes back to the device, and the request is made once more (CUDACachingAllocator.cpp, malloc).
"""

from __future__ import annotations

from sizewright_server.estimation.inference import InferenceGroup
from sizewright_server.estimation.replay import (
    OTHER_STREAMS,
    SAME,
    CachingAllocator,
    expansion_of,
)
from sizewright_server.estimation.replay_events import Expansion
from sizewright_server.estimation.segments import SMALL_REQUEST
from sizewright_server.estimation.training import TrainingGroup


class OutOfMemory(Exception):
    """The device has no room."""


class Device:
    """Memory that the pools of all streams share."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.pools: list[LimitedAllocator] = []

    def has_room(self, size: int) -> bool:
        return sum(pool.reserved_bytes for pool in self.pools) + size <= self.size_bytes


class LimitedAllocator(CachingAllocator):
    """The pool of one stream."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device, self._segments = device, dict[int, int]()
        device.pools.append(self)

    def _segment(self, size: int) -> tuple[int, int]:
        held, address = super()._segment(size)
        self.reserved_bytes -= held
        if not self._device.has_room(held):
            for pool in self._device.pools:
                pool.give_back()
        if not self._device.has_room(held):
            raise OutOfMemory(size)
        self.reserved_bytes += held
        self._segments[address] = held
        return held, address

    def give_back(self) -> None:
        """Gives segments back that are one free block each."""
        for blocks in self._free:
            kept = []
            for size, address in blocks:
                if self._segments.get(address) != size:
                    kept.append((size, address))
                    continue
                self.reserved_bytes -= size
                self._free_at.discard(address)
                del self._size_at[address], self._segments[address]
            blocks[:] = kept


def runs_within(group: TrainingGroup | InferenceGroup, allocated: int, size_bytes: int) -> bool:
    """Whether a run's requests are all answered on a device with so many bytes for them.

    Of a deep model fewer blocks are replayed: their device is smaller by what the others take.
    """
    peak, whole, waiting = _peak(group)
    complete = whole and abs(peak - allocated) <= SAME * allocated
    device = Device(size_bytes if complete else size_bytes - (allocated - peak) - waiting)
    try:
        _run(expansion_of(group), device)
    except OutOfMemory:
        return False
    return True


def _peak(group: TrainingGroup | InferenceGroup) -> tuple[int, bool, int]:
    """Live bytes of the replayed blocks at most, whether those are all, and bytes that wait."""
    expansion = expansion_of(group)
    peak = _run(expansion, Device(2**62))
    return peak, not expansion.cut, expansion.waiting_bytes()


def _run(expansion: Expansion, device: Device) -> int:
    """Runs all requests; the most bytes that live in them. Raises OutOfMemory."""
    pools: dict[int, LimitedAllocator] = {}
    live: dict[tuple[int, int, int], tuple[int, int]] = {}
    allocated = peak = 0
    usual = LimitedAllocator(device)
    for stream in OTHER_STREAMS:
        pools[stream] = LimitedAllocator(device)
    for handle, size in expansion.requests():
        pool = pools.get(handle[0], usual)
        held = live.pop(handle, None)
        if size > 0:
            live[handle] = pool.allocate(size), size
            allocated += size
        if held is not None:
            pool.free(held[0], held[1] <= SMALL_REQUEST)
            allocated -= held[1]
        if expansion.running:
            peak = max(peak, allocated)
    return peak
