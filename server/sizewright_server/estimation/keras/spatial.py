"""Keras layers on images and signals: convolutions, pooling, padding."""

from __future__ import annotations

from math import prod

from sizewright_server.estimation.keras.description import LayerSpec
from sizewright_server.estimation.keras.layers import (
    Made,
    Settings,
    Shape,
    activated,
    pair,
    rule,
    whole,
)


def _dimensions(kind: str) -> int:
    return int(next(letter for letter in kind if letter.isdigit()))


def _channels_first(settings: Settings) -> bool:
    return settings.get("data_format") == "channels_first"


def _split(settings: Settings, shape: Shape) -> tuple[Shape, int]:
    """Positions and channels of a sample."""
    return (shape[1:], shape[0]) if _channels_first(settings) else (shape[:-1], shape[-1])


def _joined(settings: Settings, positions: Shape, channels: int) -> Shape:
    return (channels, *positions) if _channels_first(settings) else (*positions, channels)


def _strided(settings: Settings, positions: Shape, window: Shape, strides: Shape) -> Shape:
    """Output positions of a window that moves over an input."""
    if settings.get("padding", "valid") in ("same", "causal"):
        return tuple(-(-size // step) for size, step in zip(positions, strides, strict=True))
    made = tuple(
        (size - wide) // step + 1
        for size, wide, step in zip(positions, window, strides, strict=True)
    )
    if any(size < 1 for size in made):
        raise ValueError(f"a window {window} on {positions}")
    return made


@rule("Conv1D", "Conv2D", "Conv3D", "Convolution2D")
def convolution(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Filters over positions."""
    settings, count = spec.settings, _dimensions(spec.kind)
    positions, channels = _split(settings, shapes[0])
    window = pair(settings, "kernel_size", count)
    spread = pair(settings, "dilation_rate", count)
    reach = tuple((w - 1) * d + 1 for w, d in zip(window, spread, strict=True))
    out = _strided(settings, positions, reach, pair(settings, "strides", count))
    filters, groups = whole(settings, "filters"), whole(settings, "groups", 1)
    weights = (prod(window) * channels // groups * filters,)
    return _filtered(settings, _joined(settings, out, filters), filters, weights)


@rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A filter of its own for each channel."""
    settings, count = spec.settings, _dimensions(spec.kind)
    positions, channels = _split(settings, shapes[0])
    window = pair(settings, "kernel_size", count)
    out = _strided(settings, positions, window, pair(settings, "strides", count))
    filters = channels * whole(settings, "depth_multiplier", 1)
    return _filtered(settings, _joined(settings, out, filters), filters, (prod(window) * filters,))


@rule("SeparableConv1D", "SeparableConv2D")
def separable(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Depthwise, then pointwise; the tensor between them is kept."""
    settings, count = spec.settings, _dimensions(spec.kind)
    positions, channels = _split(settings, shapes[0])
    window = pair(settings, "kernel_size", count)
    out = _strided(settings, positions, window, pair(settings, "strides", count))
    between = channels * whole(settings, "depth_multiplier", 1)
    filters = whole(settings, "filters")
    weights = (prod(window) * between, between * filters)
    made = _filtered(settings, _joined(settings, out, filters), filters, weights)
    return Made(
        made.shape,
        made.weights,
        keeps_input=True,
        keeps_output=made.keeps_output,
        saved=made.saved + prod(out) * between,
        convolution=True,
    )


@rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Positions times strides, and the window's rest without padding."""
    settings = spec.settings
    count = _dimensions(spec.kind)
    positions, channels = _split(settings, shapes[0])
    window, strides = pair(settings, "kernel_size", count), pair(settings, "strides", count)
    rest = settings.get("padding", "valid") == "valid"
    out = tuple(
        size * step + (max(wide - step, 0) if rest else 0)
        for size, wide, step in zip(positions, window, strides, strict=True)
    )
    filters = whole(settings, "filters")
    weights = (prod(window) * channels * filters,)
    return _filtered(settings, _joined(settings, out, filters), filters, weights)


def _filtered(settings: Settings, shape: Shape, filters: int, weights: tuple[int, ...]) -> Made:
    kept, saved = activated(settings, prod(shape))
    bias = (filters,) if settings.get("use_bias", True) else ()
    return Made(
        shape,
        (*weights, *bias),
        keeps_input=True,
        keeps_output=kept,
        saved=saved,
        convolution=True,
    )


@rule("MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "MaxPool2D")
@rule("AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "AvgPool2D")
def pooling(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """The largest or the mean of a window; a maximum finds its place again by its input."""
    settings, count = spec.settings, _dimensions(spec.kind)
    positions, channels = _split(settings, shapes[0])
    window = pair(settings, "pool_size", count, 2)
    strides = window if settings.get("strides") is None else pair(settings, "strides", count)
    out = _strided(settings, positions, window, strides)
    largest = spec.kind.startswith("Max")
    shape = _joined(settings, out, channels)
    return Made(shape, keeps_input=largest, keeps_output=largest)


@rule("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D")
@rule("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D")
def global_pooling(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """One value a channel."""
    positions, channels = _split(spec.settings, shapes[0])
    kept = spec.settings.get("keepdims", False)
    shape = _joined(spec.settings, (1,) * len(positions), channels) if kept else (channels,)
    return Made(shape, keeps_input=spec.kind.startswith("GlobalMax"))


@rule("ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D", "UpSampling1D", "UpSampling2D")
def moved(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """More or fewer positions."""
    settings, count = spec.settings, _dimensions(spec.kind)
    positions, channels = _split(settings, shapes[0])
    if spec.kind.startswith("UpSampling"):
        times = pair(settings, "size", count, 2)
        out = tuple(size * time for size, time in zip(positions, times, strict=True))
    else:
        name = "padding" if spec.kind.startswith("ZeroPadding") else "cropping"
        sign = 1 if name == "padding" else -1
        out = tuple(
            size + sign * both
            for size, both in zip(positions, _both_sides(settings[name], count), strict=True)
        )
    if any(size < 1 for size in out):
        raise ValueError(f"{positions} becomes {out}")
    return Made(_joined(settings, out, channels))


def _both_sides(value: object, count: int) -> Shape:
    """Positions added on both sides of each axis: one number, one an axis, or two an axis."""
    if isinstance(value, int):
        return (2 * value,) * count
    sides = list(value) if isinstance(value, list | tuple) else []
    if count == 1 and len(sides) == 2:
        return (int(sides[0]) + int(sides[1]),)
    made = [2 * side if isinstance(side, int) else sum(int(s) for s in side) for side in sides]
    if len(made) != count:
        raise ValueError(f"{value!r}")
    return tuple(made)
