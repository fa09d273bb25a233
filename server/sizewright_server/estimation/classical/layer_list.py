"""An explicit list of layers as the stages of a PyTorch network on the CPU.

A layer's dimensions are per sample; sizes that follow from the layer before need not be said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from sizewright_server.estimation.classical.network_stages import (
    Network,
    Stage,
    encoder_stage,
    linear,
    recurrent_stage,
)
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation

FIELD = "workload.model.layers.layers"
Dimensions: TypeAlias = Mapping[str, int]
Shape: TypeAlias = tuple[int, ...]
RGB = 3


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the list."""

    kind: str
    dimensions: Dimensions


Rule: TypeAlias = Callable[[Layer, Shape], tuple[Stage, Shape]]


def network_from_layers(layers: Sequence[Layer]) -> Network:
    """The network of a list. Raises UnsupportedWorkload with the layer that is wrong."""
    shape: Shape = ()
    stages: list[Stage] = []
    inputs = 0
    for at, layer in enumerate(layers):
        found = _RULES.get(layer.kind)
        if found is None:
            words = f"must be one of {', '.join(sorted(_RULES))}, not {layer.kind!r}"
            raise UnsupportedWorkload(Violation(f"{FIELD}.{at}.kind", words))
        try:
            before = shape or _first(layer)
            stage, shape = found(layer, before)
        except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
            words = f"of {layer.kind!r} lack or mistake {error}"
            raise UnsupportedWorkload(Violation(f"{FIELD}.{at}.dimensions", words)) from error
        inputs = inputs or prod(before)
        if min(shape, default=1) < 1:
            words = f"leave nothing of {before}"
            raise UnsupportedWorkload(Violation(f"{FIELD}.{at}.dimensions", words))
        stages.append(stage)
    if not stages:
        raise UnsupportedWorkload(Violation(FIELD, "is empty"))
    return Network("layer list", tuple(stages), inputs, prod(shape))


def _first(layer: Layer) -> Shape:
    """The input's shape as the first layer says it: channels x pixels, steps x width, or width."""
    sizes = layer.dimensions
    if layer.kind == "conv2d":
        return (sizes["in"], sizes["height"], sizes["width"])
    if layer.kind == "embedding":
        return (sizes["seq"],)
    if layer.kind == "transformer":
        return (sizes["seq"], sizes["width"])
    return (sizes["seq"], sizes["in"]) if "seq" in sizes else (sizes["in"],)


def _linear(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    out = layer.dimensions["out"]
    stage = linear("linear", shape[-1], out, activation=False, per=prod(shape[:-1]))
    return stage, (*shape[:-1], out)


def _activation(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    size = prod(shape)
    kept = size * (2 if layer.kind in ("gelu", "silu") else 1)
    return Stage(layer.kind, 0, 0, size, kept, transient=0), shape


def _dropout(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    """On the CPU the noise is float32, kept beside the output."""
    size = prod(shape)
    return Stage(layer.kind, 0, 0, size, 2 * size), shape


def _conv(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    """oneDNN copies input and output to its blocked layout; images of few channels are not."""
    sizes, (inner, high, wide) = layer.dimensions, shape
    kernel, stride, pad = sizes.get("kernel", 3), sizes.get("stride", 1), sizes.get("padding", 0)
    out = sizes["out"]
    made = tuple((side + 2 * pad - kernel) // stride + 1 for side in (high, wide))
    weights = inner * out * kernel * kernel // sizes.get("groups", 1)
    positions = out * prod(made)
    blocked = positions + (prod(shape) if inner > RGB else 0)
    stage = Stage("conv2d", weights + out, weights, positions, positions, workspace=blocked)
    return stage, (out, *made)


def _norm(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    width = shape[0] if layer.kind == "batch-norm" else shape[-1]
    size = prod(shape)
    return Stage(layer.kind, 2 * width, width, size, size), shape


def _pool(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    """Max pooling keeps where the maxima were, as int64: two elements each."""
    kernel = layer.dimensions.get("kernel", 2)
    stride = layer.dimensions.get("stride", kernel)
    made = (shape[0], *((side - kernel) // stride + 1 for side in shape[1:]))
    size = prod(made)
    kept = size * (3 if layer.kind == "max-pool2d" else 1)
    return Stage(layer.kind, 0, 0, size, kept), made


def _global_pool(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    made = (shape[0],) if len(shape) == 3 else (shape[-1],)
    return Stage(layer.kind, 0, 0, made[0], made[0]), made


def _flatten(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    size = prod(shape)
    return Stage("flatten", 0, 0, size, 0), (size,)


def _embedding(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    rows, width = layer.dimensions["vocab"], layer.dimensions["out"]
    size = prod(shape) * width
    return Stage("embedding", rows * width, rows * width, size, size), (*shape, width)


def _recurrent(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    steps, inner = shape
    width = layer.dimensions["hidden"]
    return recurrent_stage(layer.kind, layer.kind, inner, width, steps), (steps, width)


def _last_step(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    return Stage("last-step", 0, 0, shape[-1], shape[-1]), (shape[-1],)


def _transformer(layer: Layer, shape: Shape) -> tuple[Stage, Shape]:
    steps, width = shape
    sizes = layer.dimensions
    return encoder_stage(width, sizes["ffn"], sizes["heads"], steps), shape


_RULES: dict[str, Rule] = {
    "linear": _linear,
    **dict.fromkeys(("relu", "gelu", "silu", "tanh", "sigmoid", "softmax"), _activation),
    "dropout": _dropout,
    "conv2d": _conv,
    "batch-norm": _norm,
    "layer-norm": _norm,
    "max-pool2d": _pool,
    "avg-pool2d": _pool,
    "global-pool": _global_pool,
    "flatten": _flatten,
    "embedding": _embedding,
    "lstm": _recurrent,
    "gru": _recurrent,
    "last-step": _last_step,
    "transformer": _transformer,
}
