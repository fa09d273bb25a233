"""Model states: weights, gradients and optimizer state, whole or sharded.

Sources: ZeRO (arXiv 1910.02054) for what each stage shards; torch.optim and FSDP2
(torch/distributed/fsdp/_fully_shard) of PyTorch 2.13 for types; DeepSpeed's ZeRO optimizers
(deepspeed/runtime/zero) for its fp32 master copy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.layout import MegatronSettings
from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.ops import FP32, Types
from sizewright_server.estimation.profile import Column, elements, round_up
from sizewright_server.estimation.techniques import AdapterStyle
from sizewright_server.estimation.weight_formats import WeightFormat, weight_format
from sizewright_server.estimation.workload import Precision, Sharding, Training

HALF = 2


@cache
def _buffers() -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = data_of("sizewright_server.estimation", "sharding")
    return table


#: Formats that checkpoints come in, experts and all; others are made of linear layers as they load.
WHOLE_CHECKPOINTS = ("gptq-int4", "gptq-int8", "awq-int4", "fp8")


def buffer_elements(name: str, bound: str) -> int:
    """Elements of a library's buffer: `bound` is "low", "value" or "high"."""
    return _buffers()[name][bound]


@dataclass(frozen=True, slots=True)
class Widths:
    """Bytes per element of each model state. `master` 0 means no separate copy.

    `stored` is of the weights at rest; under an adapter that is the frozen ones, and `trained`,
    `gradient`, `state` and `master` are of what is trained.
    """

    types: Types
    stored: int
    gradient: int
    reduced: int
    state: int
    master: int
    trained: int = 0
    #: States are of flat buffers over every parameter that asks for a gradient, got or not.
    flat: bool = False


#: Libraries that step flat buffers (torch FSDP's FlatParameter; DeepSpeed's runtime/zero, whose
#: partitions hold zeros where a parameter has no gradient).
FLAT = ("deepspeed", "fsdp1")
ITEMSIZES = {"fp32": FP32, "bf16": HALF, "fp16": HALF}


def state_widths(training: Training, sharding: Sharding) -> Widths:
    """How a run keeps its states under a sharding library, and in what it reduces.

    Mixed precision means three things: autocast over fp32 weights (DDP or one GPU), a
    MixedPrecisionPolicy over fp32 shards reducing in fp32 (FSDP2), and 16-bit weights with an fp32
    master copy in the optimizer (DeepSpeed). What the run states of its types overrides these.
    """
    widths = _usual(training.precision, sharding)
    if training.adapter is not None:
        widths = _under_adapter(widths, training)
    if training.gradient_reduce_dtype is not None:
        widths = replace(widths, reduced=ITEMSIZES[training.gradient_reduce_dtype])
    stated = training.states
    if stated.master_weights is not None:
        widths = replace(widths, master=FP32 if stated.master_weights == "fp32" else 0)
        widths = replace(widths, state=FP32 if widths.master else widths.trained)
    if stated.gradients is not None:
        widths = replace(widths, gradient=ITEMSIZES[stated.gradients])
    if stated.optimizer_state is not None:
        widths = replace(widths, state=ITEMSIZES[stated.optimizer_state])
    return widths


def megatron_widths(widths: Widths, settings: MegatronSettings) -> Widths:
    """Megatron-LM's main gradients, an adapter's too, and what its optimizer keeps of the weights.

    The precision-aware optimizer keeps the 16 bits that a bf16 weight lacks to be its fp32 copy
    (core/optimizer/optimizer_config.py, store_param_remainders).
    """
    width = FP32 if settings.fp32_main_gradients else HALF
    widths = replace(widths, gradient=width, reduced=width)
    if settings.precision_aware_optimizer and widths.master and widths.trained == HALF:
        widths = replace(widths, master=HALF)
    return widths


def _under_adapter(widths: Widths, training: Training) -> Widths:
    """The frozen weights in the type or format the run states, the adapter in its own.

    The frozen weights of a quantised model that are not quantised are of the computing type, or
    fp32 where they are upcast.
    """
    assert training.adapter is not None
    base, types = training.base_weights, widths.types
    adapter = ITEMSIZES[training.adapter.dtype]
    stored = widths.stored
    quantized: WeightFormat | None = None
    if base is not None and base.format in ITEMSIZES:
        stored = ITEMSIZES[base.format]
    elif base is not None:
        quantized = weight_format(base.format, base.group_size, double=base.double_quantization)
        stored = FP32 if base.upcast_others else types.compute
    types = replace(
        types,
        weight=stored,
        adapter=AdapterStyle(
            method=training.adapter.method,
            targets=training.adapter.targets,
            dropout=training.adapter.dropout > 0,
            trained_modules=training.adapter.trained_modules,
            code=training.modeling_code,
        ),
        trained=adapter,
        quantized=quantized,
        quantized_head=base is not None and base.quantized_head,
        quantized_experts=base is not None
        and quantized is not None
        and (base.quantized_experts or base.format in WHOLE_CHECKPOINTS),
        keeps_inputs=base is not None and base.keeps_inputs,
    )
    return replace(
        widths,
        types=types,
        stored=stored,
        trained=adapter,
        gradient=adapter,
        reduced=adapter,
        state=FP32 if widths.master else adapter,
        master=widths.master if adapter != FP32 else 0,
    )


def types_of_run(types: Types, training: Training) -> Types:
    """The types with what else of a run changes what operators make."""
    float16 = training.precision in ("fp16", "fp16-mixed")
    if training.traced or float16:
        return replace(types, traced=training.traced, float16=float16)
    return types


@cache
def _usual(precision: Precision, sharding: Sharding) -> Widths:
    """What nothing stated overrides."""
    widths = _widths(precision, sharding)
    return replace(widths, trained=widths.stored, flat=sharding in FLAT)


def _widths(precision: Precision, sharding: Sharding) -> Widths:
    if precision in ("fp32", "tf32"):
        plain = Types(FP32, FP32, autocast=False)
        master = FP32 if sharding == "deepspeed" else 0
        return Widths(plain, FP32, FP32, FP32, FP32, master)
    half = Types(HALF, HALF, autocast=False)
    if precision in ("fp8", "mxfp8", "nvfp4"):
        half = replace(half, product=precision)
    if sharding == "megatron":
        return Widths(half, HALF, FP32, FP32, FP32, FP32)
    if sharding == "deepspeed":
        return Widths(half, HALF, HALF, HALF, FP32, FP32)
    if precision in ("bf16", "fp16"):
        return Widths(half, HALF, HALF, HALF, HALF, 0)
    if sharding == "fsdp2":
        return Widths(half, FP32, FP32, FP32, FP32, 0)
    if sharding == "fsdp1":
        # MixedPrecision without a reduce_dtype reduces in the type of the parameters.
        return Widths(half, FP32, FP32, HALF, FP32, 0)
    mixed = Types(FP32, HALF, autocast=True, product=half.product)
    return Widths(mixed, FP32, FP32, FP32, FP32, 0)


def tensor_bytes(
    segment: Segment, dims: dict[str, Column], itemsize: int, ways: Column | int = 1
) -> Column:
    """Bytes of one instance's parameter tensors at a width, each split `ways` and rounded up."""
    total = np.zeros(1, dtype=np.int64)
    for parameter in segment.program.parameters:
        total = total + round_up(-(-elements(parameter.shape, dims) // ways) * itemsize)
    return total
