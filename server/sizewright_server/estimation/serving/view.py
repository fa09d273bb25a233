"""What an engine makes of a GPU: its breakdown, its pool, and how much the pool then holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sizewright_server.estimation.memory import ByteRange, Part


@dataclass(frozen=True, slots=True)
class CountRange:
    """A count as low, best and high."""

    low: int
    best: int
    high: int


@dataclass(frozen=True, slots=True)
class ServingView:
    """An engine on a device. Bytes are one GPU's; counts are one replica's.

    `breakdown` is what the engine's own log says on its first rank: weights, activations,
    non-torch, cuda-graphs and kv-cache. The pool's fields are None where no device is known.
    """

    engine: str
    engine_version: str
    breakdown: tuple[Part, ...]
    bytes_per_token: int
    block_tokens: int
    block_bytes: int
    needed_cache: ByteRange
    least_gpu: ByteRange
    #: The allocator's peak on the fullest GPU of this kind; None where an engine has a pool.
    allocated: ByteRange | None = None
    #: Allocated peaks of all GPUs of a replica together; None where an engine has a pool.
    all_gpus: ByteRange | None = None
    engine_use: ByteRange | None = None
    kv_tokens: CountRange | None = None
    kv_blocks: CountRange | None = None
    sequences: CountRange | None = None
    longest_sequence: CountRange | None = None

    def part(self, name: str) -> ByteRange:
        """A part of the breakdown. Raises KeyError where there is none of that name."""
        for part in self.breakdown:
            if part.name == name:
                return part.size
        raise KeyError(name)


#: Longest sequence the inverse looks for: beyond every published context.
LONGEST = 2**24
MOST_SEQUENCES = 2**20


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 0 to `most` that fits; what fits gets no worse as it gets smaller."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
