"""How fast devices are, as their data sheets say: the peaks nobody reaches."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

#: Columns of the device table by the number type of a matrix product, dense.
COLUMNS = {
    "fp32": "fp32_tflops",
    "tf32": "tf32_tflops_dense",
    "fp16": "fp16_tflops_dense",
    "bf16": "bf16_tflops_dense",
    "fp8": "fp8_tflops_dense",
}


@dataclass(frozen=True, slots=True)
class Speed:
    """Peaks of one device; what its data sheet leaves out is absent, or 0."""

    flops: Mapping[str, float]
    memory_bytes_per_second: float
    link_bytes_per_second: float
    pcie_generation: int


@cache
def speeds() -> dict[str, Speed]:
    """Every known device's speed by canonical name."""
    path = resources.files("sizewright_catalog").joinpath("data/devices.csv")
    made = {}
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        flops = {kind: float(row[c]) * 1e12 for kind, c in COLUMNS.items() if row[c]}
        made[row["name"]] = Speed(
            flops=flops,
            memory_bytes_per_second=float(row["mem_bw_gb_s"] or 0) * 1e9,
            link_bytes_per_second=float(row["link_gb_s_bidir"] or 0) * 1e9,
            pcie_generation=int(row["pcie_gen"] or 0),
        )
    return made
