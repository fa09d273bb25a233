"""Replays a trace through a model of torch's CUDA caching allocator to find the memory it would
reserve.

Segments are never given back: the device is taken to be large enough, so that no allocation is
retried.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field

from memory_trace import Event, rounded

MIB = 1 << 20
SMALL_REQUEST_BYTES = 1 * MIB  # up to here requests come from the pool of small segments
SMALL_SEGMENT_BYTES = 2 * MIB
MEDIUM_REQUEST_BYTES = 10 * MIB  # below here several large requests share a segment
MEDIUM_SEGMENT_BYTES = 20 * MIB
LARGE_GRANULE_BYTES = 2 * MIB
SMALL_REMAINDER_BYTES = 512


@dataclass(slots=True)
class Chunk:
    """A part of a segment, free or handed out, linked to its neighbours."""

    address: int
    size_bytes: int
    free: bool = False
    before: Chunk | None = None
    after: Chunk | None = None


@dataclass(slots=True)
class Pool:
    """The free chunks of one pool, smallest first, and among equals the lowest address."""

    small: bool
    keys: list[tuple[int, int]] = field(default_factory=list)
    chunks: dict[tuple[int, int], Chunk] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        key = (chunk.size_bytes, chunk.address)
        chunk.free = True
        bisect.insort(self.keys, key)
        self.chunks[key] = chunk

    def remove(self, chunk: Chunk) -> None:
        key = (chunk.size_bytes, chunk.address)
        chunk.free = False
        del self.keys[bisect.bisect_left(self.keys, key)]
        del self.chunks[key]

    def best_fit(self, size: int) -> Chunk | None:
        index = bisect.bisect_left(self.keys, (size, 0))
        return self.chunks[self.keys[index]] if index < len(self.keys) else None


class CachingAllocator:
    """Hands out chunks and counts what it had to ask the device for."""

    def __init__(self) -> None:
        self.small = Pool(small=True)
        self.large = Pool(small=False)
        self.reserved_bytes = 0
        self._next_address = 0

    def allocate(self, size: int) -> Chunk:
        """A chunk of ``size`` bytes, a multiple of 512."""
        pool = self._pool(size)
        chunk = pool.best_fit(size)
        if chunk is None:
            chunk = self._segment(size)
        else:
            pool.remove(chunk)
        remainder = chunk.size_bytes - size
        if remainder >= SMALL_REMAINDER_BYTES if pool.small else remainder > SMALL_REQUEST_BYTES:
            rest = Chunk(chunk.address + size, remainder, before=chunk, after=chunk.after)
            if rest.after is not None:
                rest.after.before = rest
            chunk.after, chunk.size_bytes = rest, size
            pool.add(rest)
        return chunk

    def release(self, chunk: Chunk, size: int) -> None:
        """Takes a chunk back and joins it with free neighbours; ``size`` is what was asked for."""
        pool = self._pool(size)
        before, after = chunk.before, chunk.after
        if before is not None and before.free:
            pool.remove(before)
            before.size_bytes += chunk.size_bytes
            before.after = after
            if after is not None:
                after.before = before
            chunk = before
        if after is not None and after.free:
            pool.remove(after)
            chunk.size_bytes += after.size_bytes
            chunk.after = after.after
            if after.after is not None:
                after.after.before = chunk
        pool.add(chunk)

    def _pool(self, size: int) -> Pool:
        return self.small if size <= SMALL_REQUEST_BYTES else self.large

    def _segment(self, size: int) -> Chunk:
        if size <= SMALL_REQUEST_BYTES:
            held = SMALL_SEGMENT_BYTES
        elif size < MEDIUM_REQUEST_BYTES:
            held = MEDIUM_SEGMENT_BYTES
        else:
            held = -(-size // LARGE_GRANULE_BYTES) * LARGE_GRANULE_BYTES
        chunk = Chunk(self._next_address, held)
        self._next_address += held
        self.reserved_bytes += held
        return chunk


def replay(events: Iterable[Event]) -> int:
    """Bytes reserved after all events, which is the peak, as nothing is given back."""
    allocator = CachingAllocator()
    held: dict[int, Chunk] = {}
    for event in events:
        number, size = event.block.number, rounded(event.block.requested_bytes)
        if event.delta_bytes > 0:
            held[number] = allocator.allocate(size)
        else:
            allocator.release(held.pop(number), size)
    return allocator.reserved_bytes
