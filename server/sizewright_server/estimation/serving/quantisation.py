"""True bytes of weights in a stored type: plain, or quantised with its scales and zeros."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.serving.model import Tensor

#: Bytes of an element of the plain types.
PLAIN: dict[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True, slots=True)
class Scheme:
    """An entry of `data/quantisation.json`; bits of 16 and no groups make a plain type."""

    name: str
    bits: float
    source: str
    converts: tuple[str, ...] = ()
    group: int = 0
    scale_bits: float = 0
    zero_bits: float = 0
    row_bytes: int = 0
    column_bytes: int = 0
    matrix_bytes: int = 0
    block: int = 0
    #: Roles or words in tensor names that a file leaves alone although the scheme converts them.
    keeps: tuple[str, ...] = ()

    def matrix_size(self, rows: int, columns: int) -> int:
        """Bytes of one matrix of `rows` outputs and `columns` inputs."""
        size = -(-rows * columns * self.bits // 8)
        if self.group:
            groups = -(-columns // self.group)
            size += -(-rows * groups * (self.scale_bits + self.zero_bits) // 8)
        if self.block:
            size += 4 * -(-rows // self.block) * -(-columns // self.block)
        extra = self.row_bytes * rows + self.column_bytes * columns + self.matrix_bytes
        return int(size) + extra

    def tensor_size(self, tensor: Tensor, itemsize: int) -> int:
        """Bytes of a tensor: converted where its role is, else in elements of `itemsize` bytes."""
        if tensor.role in self.converts and tensor.itemsize is None:
            return tensor.count * self.matrix_size(tensor.rows, tensor.columns)
        return tensor.elements * (tensor.itemsize or itemsize)


@cache
def _table() -> dict[str, Scheme]:
    made: dict[str, Scheme] = {}
    for name, entry in data_of("sizewright_server.estimation.serving", "quantisation").items():
        if name.startswith("_"):
            continue
        others = entry.pop("other_names")
        entry["converts"] = tuple(entry["converts"])
        made[name] = Scheme(name, **entry)
        for other in others:
            made[other] = made[name]
    return made


@cache
def weight_types() -> tuple[str, ...]:
    """Every word for a stored type: plain types first, then schemes by name."""
    return (*PLAIN, *sorted({scheme.name for scheme in _table().values()}))


@lru_cache(maxsize=1024)
def scheme_of(word: str) -> Scheme:
    """The scheme of a word, in any case. Raises KeyError for an unknown one."""
    name = word.strip().lower().replace("_", "-")
    if name in PLAIN:
        return Scheme(name, 8 * PLAIN[name], "elements x bytes of the type")
    return _table()[name]


def with_group(scheme: Scheme, group: int) -> Scheme:
    """The scheme with another group size; -1 makes each row one group."""
    if not scheme.group:
        return scheme
    return replace(scheme, group=2**31 if group < 0 else group)


#: `quant_method` of a config.json by what else it says.
_METHODS = {"awq": "awq-int4", "mxfp4": "mxfp4", "hqq": "hqq-int4"}


def scheme_of_config(stated: dict[str, Any]) -> Scheme | None:
    """The scheme a config.json's `quantization_config` states; None for one that is not known."""
    method = str(stated.get("quant_method", "")).lower()
    bits = stated.get("bits", stated.get("w_bit"))
    name = _METHODS.get(method)
    if method == "gptq" and bits in (3, 4, 8):
        name = f"gptq-int{bits}"
    if method == "fbgemm_fp8":
        name = "fbgemm-fp8"
    if method == "fp8":
        name = "fp8-block" if stated.get("weight_block_size") else "fp8"
    if method == "bitsandbytes":
        double = "-double-quant" if stated.get("bnb_4bit_use_double_quant") else ""
        name = "bnb-int8" if stated.get("load_in_8bit") else f"bnb-nf4{double}"
    if method == "compressed-tensors":
        name = _compressed(stated)
    if method == "modelopt" and "FP4" in str(stated.get("quant_algo", "")).upper():
        name = "nvfp4"
    if name is None:
        return None
    group = stated.get("group_size", stated.get("q_group_size"))
    scheme = scheme_of(name)
    return with_group(scheme, group) if isinstance(group, int) and group else scheme


def _compressed(stated: dict[str, Any]) -> str | None:
    """compressed-tensors says the format of its first group."""
    groups = stated.get("config_groups")
    first: object = next(iter(groups.values()), {}) if isinstance(groups, dict) else {}
    weights = first.get("weights") if isinstance(first, dict) else None
    if not isinstance(weights, dict):
        return None
    bits, kind = weights.get("num_bits"), weights.get("type")
    if kind == "float":
        return {8: "fp8", 4: "nvfp4"}.get(int(bits or 0))
    return {8: "int8-w8a8", 4: "w4a16"}.get(int(bits or 0))
