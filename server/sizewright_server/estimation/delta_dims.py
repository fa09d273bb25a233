"""The dimensions of a gated delta net; `delta_net.py` and `delta_shapes.py` say what each is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.architecture import Sizes
from sizewright_server.estimation.delta_shapes import CHUNK

Column = NDArray[np.int64]

#: Results of a gated delta net's projections.
SPLIT_AND_GATHERED = ("H", "LH", "LV", "LBA", "LQKV", "LQKVZ")


def delta_dims(sizes: Sizes, tp: Column) -> dict[str, Column]:
    """Widths of a gated delta net; a rank's rows of its projections, and part of their results."""
    whole = _whole(sizes)
    split = {name: whole[name] // tp for name in SPLIT_AND_GATHERED if whole}
    made = {name: np.full_like(tp, width) for name, width in whole.items() if name != "H"}
    made |= {f"{name}T": width for name, width in split.items()}
    return made | {f"{name}P": np.where(tp > 1, width, 0) for name, width in split.items()}


def _whole(sizes: Sizes) -> dict[str, int]:
    if not sizes.delta_heads:
        return {}
    keys = sizes.delta_key_heads * sizes.delta_key_dim
    values = sizes.delta_heads * sizes.delta_value_dim
    return {
        "H": sizes.hidden,
        "LH": sizes.delta_heads,
        "LG": sizes.delta_key_heads,
        "LD": sizes.delta_key_dim,
        "LE": sizes.delta_value_dim,
        "LK": keys,
        "LV": values,
        "LBA": 2 * sizes.delta_heads,
        "LQKV": 2 * keys + values,
        "LQKVZ": 2 * (keys + values),
        "CW": sizes.conv_kernel,
        "CW1": sizes.conv_kernel + 1,
    }


def chunk_dims(sizes: Sizes, dims: Mapping[str, Column]) -> dict[str, Column]:
    """Tokens of a gated delta net in whole chunks, and how the turns of its loop are grouped."""
    tokens, samples = dims["S"], dims["B"]
    chunks = -(-tokens // CHUNK)
    return {
        "LT": chunks * CHUNK,
        "LC": chunks,
        "BE": samples * (chunks > 1),
        "BR": samples * np.maximum(chunks - 2, 0),
        "BQ": samples * np.maximum(chunks - 3, 0),
        "SCW": tokens + sizes.conv_kernel - 1,
    }
