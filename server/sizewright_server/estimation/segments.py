"""How much of the caching allocator's segments tensors that stay leave empty.

Requests of up to 1 MiB share segments of 2 MiB, below 10 MiB of 20 MiB, above each has one rounded
up to 2 MiB (c10/cuda/CUDACachingAllocator.cpp, PyTorch 2.13).
"""

from __future__ import annotations

import numpy as np

from sizewright_server.estimation.profile import Column

MIB = 2**20
SMALL_REQUEST = MIB
SMALL_SEGMENT = 2 * MIB
MEDIUM_REQUEST = 10 * MIB
MEDIUM_SEGMENT = 20 * MIB
GRANULE = 2 * MIB


def unfilled(sizes: Column) -> Column:
    """Bytes of segments that each tensor leaves empty at most.

    Tensors of one medium size are taken to share segments with none of another.
    """
    fitting = MEDIUM_SEGMENT // np.clip(sizes, SMALL_REQUEST, MEDIUM_SEGMENT)
    medium = MEDIUM_SEGMENT // fitting - sizes
    own = np.where(sizes < MEDIUM_REQUEST, medium, -sizes % GRANULE)
    return np.where(sizes > SMALL_REQUEST, own, 0)
