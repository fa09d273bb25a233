"""Sizes of recurrent layers: Mamba's channels, heads, states and convolution.

Dimension names: MI channels, MI2 those and their gate's, MN numbers of a channel's state, MR rank
of the time step, MX what is projected from every channel, MT taps of the convolution, MS tokens
with its padding on one side, MV states that the scan's kernel writes down. Of Mamba-2 besides: MH
heads, MD channels of one, MG groups, MJ heads of one, MGN states of all groups, MC channels of the
convolution, MP width of the first projection, ML tokens of a chunk, MK chunks, MK1 one more, MLK
tokens with the padding of the last chunk, MSPLIT pieces that gradients of a group are added up
from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.int64]

#: Mixers that scan: Mamba's over channels, Mamba-2's over heads.
MAMBA = ("mamba", "mamba2")
#: Tokens between two states that mamba-ssm's selective scan writes down (selective_scan.cpp).
SCAN_CHUNK_TOKENS = 2048
#: Streaming multiprocessors, among which it spreads a group's heads: an A100's. Where there is more
#: to do than they take at once, their number changes nothing (ssd_chunk_scan.py).
MULTIPROCESSORS = 108


@dataclass(frozen=True, slots=True)
class RecurrentSizes:
    """Widths in elements; `heads`, `groups` and `chunk` are Mamba-2's, `rank` is Mamba's."""

    inner: int = 0
    state: int = 0
    taps: int = 0
    rank: int = 0
    heads: int = 0
    groups: int = 0
    chunk: int = 0

    def pads(self, tokens: int) -> bool:
        """Whether the last chunk of so many tokens is not full."""
        return bool(self.chunk) and tokens % self.chunk != 0


#: Of models without recurrent layers.
NO_RECURRENCE = RecurrentSizes()


def recurrent_dims(sizes: RecurrentSizes, tokens: Column, batch: Column) -> Mapping[str, Column]:
    """The dimensions of a layer that runs over `tokens` of each sample, per layout."""
    inner, state, heads = sizes.inner, sizes.state, max(sizes.heads, 1)
    groups, chunk = max(sizes.groups, 1), max(sizes.chunk, 1)
    channels = inner + 2 * groups * state
    chunks = -(-tokens // chunk)
    whole = {
        "MI": inner,
        "MI2": 2 * inner,
        "MN": state,
        "MR": sizes.rank,
        "MX": sizes.rank + 2 * state,
        "MT": sizes.taps,
        "MH": heads,
        "MD": inner // heads,
        "MG": groups,
        "MJ": heads // groups,
        "MGN": groups * state,
        "MC": channels,
        "MP": inner + channels + heads,
        "ML": chunk,
    }
    made = {name: np.full_like(tokens, value) for name, value in whole.items()}
    made |= {"MS": tokens + sizes.taps - 1, "MK": chunks, "MK1": chunks + 1, "MLK": chunks * chunk}
    together = np.clip(-(-batch * chunks * heads // MULTIPROCESSORS), 1, heads // groups)
    return made | {
        "MV": -(-tokens // SCAN_CHUNK_TOKENS),
        "MSPLIT": -(-(heads // groups) // together),
    }
