"""Model states: weights, gradients and optimizer state, whole or sharded.

Sources: ZeRO (arXiv 1910.02054) for what each stage shards; torch.optim and FSDP2
(torch/distributed/fsdp/_fully_shard) of PyTorch 2.13 for types; DeepSpeed's ZeRO optimizers
(deepspeed/runtime/zero) for its fp32 master copy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np

from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.ops import FP32, Types
from sizewright_server.estimation.profile import Column, elements, round_up
from sizewright_server.estimation.workload import Precision, Sharding

HALF = 2


@dataclass(frozen=True, slots=True)
class OptimizerKind:
    """State tensors per parameter and lists the foreach step makes, in units of the parameters."""

    states: int
    foreach_temporaries: int
    source: str


@cache
def optimizers() -> dict[str, OptimizerKind]:
    """Every optimizer by name."""
    text = resources.files("sizewright_server.estimation").joinpath("data/optimizers.json")
    table = json.loads(text.read_text(encoding="utf-8"))
    return {
        name: OptimizerKind(**entry) for name, entry in table.items() if not name.startswith("_")
    }


@cache
def _buffers() -> dict[str, dict[str, int]]:
    text = resources.files("sizewright_server.estimation").joinpath("data/sharding.json")
    table: dict[str, dict[str, int]] = json.loads(text.read_text(encoding="utf-8"))
    return table


def buffer_elements(name: str, bound: str) -> int:
    """Elements of a library's buffer: `bound` is "low", "value" or "high"."""
    return _buffers()[name][bound]


@dataclass(frozen=True, slots=True)
class Widths:
    """Bytes per element of each model state. `master` 0 means no separate copy."""

    types: Types
    stored: int
    gradient: int
    reduced: int
    state: int
    master: int


def state_widths(
    precision: Precision, sharding: Sharding, reduce_dtype: str | None = None
) -> Widths:
    """How a precision keeps its states under a sharding library, and in what it reduces.

    Mixed precision means three things: autocast over fp32 weights (DDP or one GPU), a
    MixedPrecisionPolicy over fp32 shards reducing in fp32 (FSDP2), and 16-bit weights with an fp32
    master copy in the optimizer (DeepSpeed).
    """
    widths = _widths(precision, sharding)
    if reduce_dtype is None:
        return widths
    return replace(widths, reduced=FP32 if reduce_dtype == "fp32" else HALF)


def _widths(precision: Precision, sharding: Sharding) -> Widths:
    if precision == "fp32":
        plain = Types(FP32, FP32, autocast=False)
        master = FP32 if sharding == "deepspeed" else 0
        return Widths(plain, FP32, FP32, FP32, FP32, master)
    half = Types(HALF, HALF, autocast=False)
    if sharding == "deepspeed":
        return Widths(half, HALF, HALF, HALF, FP32, FP32)
    if precision in ("bf16", "fp16"):
        return Widths(half, HALF, HALF, HALF, HALF, 0)
    if sharding == "fsdp2":
        return Widths(half, FP32, FP32, FP32, FP32, 0)
    return Widths(Types(FP32, HALF, autocast=True), FP32, FP32, FP32, FP32, 0)


def tensor_bytes(
    segment: Segment, dims: dict[str, Column], itemsize: int, ways: Column | int = 1
) -> Column:
    """Bytes of one instance's parameter tensors at a width, each split `ways` and rounded up."""
    total = np.zeros(1, dtype=np.int64)
    for shape, _ in segment.program.parameters:
        total = total + round_up(-(-elements(shape, dims) // ways) * itemsize)
    return total
