"""Formats in which frozen weights are stored in fewer bits than they are multiplied in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sizewright_server.estimation.data_files import data_of

#: Bytes of an fp32 scale, of a scale that is quantised itself, and bits of a byte.
FP32_SCALE, BYTE_SCALE, BYTE = 4, 1, 8


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """A format with its choices made."""

    name: str
    bits: int
    group: int
    half_scale_bytes: int
    double_group: int
    unsharded: Literal["none", "scales", "all"]

    def stored_bytes(self, elements: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of matrices of so many elements: the codes, and the scales of their groups."""
        return self._codes(elements) + self._scales(elements)

    def parameter_bytes(self, elements: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of these, what is in parameters, which a sharding library splits."""
        if self.unsharded == "all":
            return np.zeros_like(elements)
        scales = 0 if self.unsharded == "scales" else self._scales(elements)
        return self._codes(elements) + scales

    def whole_bytes(self, elements: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of these, what every rank has whole on its GPU."""
        return self.stored_bytes(elements) - self.parameter_bytes(elements)

    def _codes(self, elements: NDArray[np.int64]) -> NDArray[np.int64]:
        return -(-elements * self.bits // BYTE)

    def _scales(self, elements: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self.group:
            return np.zeros_like(elements)
        groups = -(-elements // self.group)
        if not self.double_group:
            return -(-groups * self.half_scale_bytes // 2)
        return groups * BYTE_SCALE + -(-groups // self.double_group) * FP32_SCALE


@cache
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = data_of("sizewright_server.estimation", "weight_formats")
    return {name: entry for name, entry in table.items() if not name.startswith("_")}


def weight_formats() -> tuple[str, ...]:
    """Every format's name."""
    return tuple(_table())


@lru_cache(maxsize=1024)
def weight_format(name: str, group_size: int = 0, *, double: bool = False) -> WeightFormat:
    """A format; `group_size` 0 is its own. Raises KeyError for a name that is not known."""
    entry = _table()[name]
    return WeightFormat(
        name=name,
        bits=int(entry["bits"]),
        group=group_size or int(entry["group"]),
        half_scale_bytes=round(2 * float(entry["scale_bytes"])),
        double_group=int(entry["double_group"]) if double else 0,
        unsharded=entry["unsharded"],
    )
