"""Replays a step's allocations through a model of PyTorch's caching allocator: bytes reserved.

Rules (c10/cuda/CUDACachingAllocator.cpp, PyTorch 2.13, default settings): requests are multiples
of 512 B; up to 1 MiB they come from segments of 2 MiB, below 10 MiB from segments of 20 MiB, above
from segments of their own rounded up to 2 MiB. The smallest free block that is large enough is
taken, the lowest address first; what is left over becomes a free block when it is at least 512 B
(small) or more than 1 MiB (large). Freed blocks join free neighbours. Nothing goes back to the
device.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from sizewright_server.estimation.layout import Layout
from sizewright_server.estimation.replay_events import Expansion, Handle
from sizewright_server.estimation.replay_shards import GATHERED, STAGED, ShardedExpansion
from sizewright_server.estimation.segments import (
    GRANULE,
    MEDIUM_REQUEST,
    MEDIUM_SEGMENT,
    SMALL_REQUEST,
    SMALL_SEGMENT,
)
from sizewright_server.estimation.training import TrainingGroup

if TYPE_CHECKING:
    from sizewright_server.estimation.inference import InferenceGroup

#: Handles of these have CUDA streams of their own, and with them blocks.
OTHER_STREAMS = (GATHERED, STAGED)
#: A replay whose own peak is this near to the schedule's has all that the schedule has.
SAME = 0.01


class CachingAllocator:
    """Free blocks by (size, address), and every block's neighbours by address."""

    def __init__(self) -> None:
        self.reserved_bytes = 0
        self._free: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self._size_at: dict[int, int] = {}
        self._free_at: set[int] = set()
        self._before: dict[int, int] = {}
        self._next_address = 0

    def allocate(self, size: int) -> int:
        """The address of a block of `size` bytes, a multiple of 512."""
        small = size <= SMALL_REQUEST
        free = self._free[small]
        at = bisect_left(free, (size, 0))
        if at < len(free):
            held, address = free.pop(at)
            self._free_at.discard(address)
            if held == size:
                return address
        else:
            held, address = self._segment(size)
        rest = held - size
        if rest >= 512 if small else rest > SMALL_REQUEST:
            tail, end, before = address + size, address + held, self._before
            self._size_at[address] = size
            self._size_at[tail] = rest
            before[tail] = address
            if end in before:
                before[end] = tail
            self._free_at.add(tail)
            insort(free, (rest, tail))
        return address

    def free(self, address: int, small: bool) -> None:
        """Gives a block back and joins it with free neighbours."""
        free, sizes = self._free[small], self._size_at
        free_at, before_at = self._free_at, self._before
        size = sizes[address]
        after = address + size
        joined = False
        if after in free_at:
            more = sizes.pop(after)
            free.pop(bisect_left(free, (more, after)))
            free_at.discard(after)
            del before_at[after]
            size, joined = size + more, True
        before = before_at.get(address)
        if before in free_at:
            del before_at[address], sizes[address]
            own = sizes[before]
            free.pop(bisect_left(free, (own, before)))
            size, address, joined = size + own, before, True
        else:
            free_at.add(address)
        if joined:
            sizes[address] = size
            if address + size in before_at:
                before_at[address + size] = address
        insort(free, (size, address))

    def _segment(self, size: int) -> tuple[int, int]:
        if size <= SMALL_REQUEST:
            held = SMALL_SEGMENT
        elif size < MEDIUM_REQUEST:
            held = MEDIUM_SEGMENT
        else:
            held = -(-size // GRANULE) * GRANULE
        # A gap between segments keeps blocks of different segments from joining.
        address = self._next_address
        self._next_address += held + GRANULE
        self.reserved_bytes += held
        self._size_at[address] = held
        return held, address


def replayed_reserved_bytes(group: TrainingGroup | InferenceGroup, allocated_bytes: int) -> int:
    """Bytes the allocator holds at the end of a run of the group's column that is shown.

    Each CUDA stream has blocks of its own; what FSDP gathers is requested on another stream. Of a
    deep model as many blocks are replayed as `replay_counts.py` allows, what a block leaves free
    being taken by the next one: the slack is then added to `allocated_bytes`, the whole model's
    peak.
    """
    streams = {stream: CachingAllocator() for stream in (0, *OTHER_STREAMS)}
    live: dict[Handle, tuple[int, int]] = {}
    allocated = peak = 0
    expansion, usual = expansion_of(group), streams[0]
    for handle, size in expansion.requests():
        allocator = streams.get(handle[0], usual)
        held = live.pop(handle, None)
        if size > 0:
            live[handle] = allocator.allocate(size), size
            allocated += size
        if held is not None:
            # Released, or made anew while it was there, as torch.cat does with a cache.
            allocator.free(held[0], held[1] <= SMALL_REQUEST)
            allocated -= held[1]
        if allocated > peak and expansion.running:
            peak = allocated
    reserved = sum(allocator.reserved_bytes for allocator in streams.values())
    # Copies of the weights, projected states and offloaded inputs are not in the requests.
    complete = abs(peak - allocated_bytes) <= SAME * allocated_bytes
    if complete and not expansion.cut:
        return reserved
    return allocated_bytes + max(0, reserved - peak + expansion.waiting_bytes())


def expansion_of(group: TrainingGroup | InferenceGroup) -> Expansion:
    """The requests of a run of the group's first layout."""
    if not isinstance(group, TrainingGroup):
        return Expansion(group)
    group, layout = group.alone(), group.layout
    alone = Layout(tp=layout.tp, sequence_parallel=layout.sequence_parallel)
    return Expansion(group) if layout == alone else ShardedExpansion(group)
