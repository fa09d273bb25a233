"""The sizes an adapter brings to the tape.

AR is the rank, AW the side of a rotation's block, AV virtual tokens, AP the width of a prefix. A
skew-symmetric block has AW x AW1 / 2 free numbers, AW1 one less than AW, so that a rotation of
width H has H/2 x AW1. LoKr's factors are sized by the layer's two widths: "A x H, small".
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.architecture import Sizes
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.techniques import Adapter


def adapter_dims(adapter: Adapter | None, sizes: Sizes) -> dict[str, int]:
    """The sizes an adapter brings to the tape."""
    if adapter is None:
        return {}
    rank, past = adapter.rank, 2 * sizes.layers * sizes.kv_heads * sizes.head_dim
    return {
        "AR": rank,
        "AW": rank,
        "AW1": rank - 1,
        "AV": adapter.virtual_tokens,
        "AP": past,
    }


#: LoKr's trained tensors: a whole small factor, and the large one in one or two.
KRONECKER_PARTS = ("small", "large", "large 2")
#: Widths that linear layers read and give.
WIDTHS = ("H", "A", "K", "F", "F2", "QKV", "VL", "FX", "FX2", "FS", "FS2", "VA", "QR", "LR")
LATENT_WIDTHS = ("QW", "KVB", "KVA")
RECURRENT_WIDTHS = ("MI", "MI2", "MX", "MP", "LH", "LV", "LBA", "LQKV", "LQKVZ")
#: Of queries with their gate, and of an indexer.
FURTHER_WIDTHS = ("A2", "IQ", "ID", "IH")


def adapter_columns(adapter: Adapter | None, dims: Mapping[str, Column]) -> dict[str, Column]:
    """Sizes of a run's own layers that only an adapter's tensors have."""
    method = None if adapter is None else adapter.method
    if method == "oft":
        return {
            f"{width}/2": dims[width] // 2
            for width in (*WIDTHS, *RECURRENT_WIDTHS)
            if width in dims
        }
    if adapter is None or method != "lokr":
        return {}
    made: dict[str, Column] = {}
    named = (*WIDTHS, *LATENT_WIDTHS, *RECURRENT_WIDTHS, *FURTHER_WIDTHS)
    inner_widths = [width for width in named if width in dims]
    # The gate of a shared expert is one number wide.
    outer = {width: dims[width] for width in inner_widths} | {"1": np.ones_like(dims["H"])}
    for width, given in outer.items():
        for inner in inner_widths:
            parts = _kronecker(given, dims[inner], adapter.rank)
            names = [f"{width} x {inner}, {part}" for part in KRONECKER_PARTS]
            made |= dict(zip(names, parts, strict=True))
    return made


def _kronecker(width: Column, inner: Column, rank: int) -> NDArray[np.int64]:
    """Elements of LoKr's factors: the larger one is of low rank unless that is no less.

    (peft/tuners/lokr/layer.py, update_layer with its default `decompose_factor`.)
    """
    columns = []
    for given, read in zip(width.tolist(), inner.tolist(), strict=True):
        (rows, tall), (columns_of, wide) = _near_square(given), _near_square(read)
        low = rank < max(tall, wide) / 2
        large = (tall * rank, rank * wide) if low else (tall * wide, 0)
        columns.append((rows * columns_of, *large))
    return np.array(columns, dtype=np.int64).T


@lru_cache(maxsize=1024)
def _near_square(size: int) -> tuple[int, int]:
    """The two divisors nearest the square root, whose product is `size`; the smaller first."""
    smaller = next((d for d in range(isqrt(size), 0, -1) if size % d == 0), 1)
    return smaller, size // max(smaller, 1)
