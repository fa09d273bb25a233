"""What a Keras layer makes of its inputs: shapes, weights, and what training keeps of it.

Shapes are per sample, without the batch; sizes are elements per sample, weights whole counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

from sizewright_server.estimation.keras.description import LayerSpec, refuse

Shape: TypeAlias = tuple[int, ...]
Settings: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """A lowered layer.

    `weights` are the elements of each trained tensor, `fixed` those of the rest. `keeps_input` and
    `keeps_output` say which tensors its backward pass reads; `saved` is what it keeps beside them,
    `workspace` what its kernels need, `alias` that its output is its input.
    """

    shape: Shape
    weights: tuple[int, ...] = ()
    fixed: int = 0
    keeps_input: bool = False
    keeps_output: bool = False
    saved: float = 0
    workspace: float = 0
    alias: bool = False
    convolution: bool = False
    steps: int = 0


Rule: TypeAlias = Callable[[LayerSpec, tuple[Shape, ...]], Made]

RULES: dict[str, Rule] = {}
#: Activations whose backward pass reads their output; the others read their input as well.
FROM_OUTPUT = ("relu", "relu6", "tanh", "sigmoid", "softmax", "elu", "softplus", "hard_sigmoid")
#: Temporaries that smooth activations keep beside their input (ops of keras.src.activations).
KEPT_BY_ACTIVATION = {"gelu": 2.0, "silu": 1.0, "swish": 1.0, "mish": 2.0, "selu": 0.0}


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Registers a rule for kinds of layers."""

    def register(made: Rule) -> Rule:
        for kind in kinds:
            RULES[kind] = made
        return made

    return register


def lower(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A layer on the shapes of its inputs. Raises UnsupportedWorkload."""
    found = RULES.get(spec.kind)
    if found is None:
        raise refuse(f"layer {spec.name!r}: the kind {spec.kind!r} is not known")
    try:
        return found(spec, shapes)
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise refuse(f"layer {spec.name!r} ({spec.kind}) lacks or mistakes {error}") from error


def whole(settings: Settings, name: str, default: int | None = None) -> int:
    """A positive whole setting. Raises KeyError or ValueError."""
    value = settings.get(name, default)
    if value is None:
        raise KeyError(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} = {value!r}")
    return value


def pair(settings: Settings, name: str, count: int, default: int = 1) -> Shape:
    """A setting of `count` sizes, or one size for all."""
    value = settings.get(name, default)
    sizes = [value] * count if isinstance(value, int) else list(value)
    if len(sizes) != count or any(not isinstance(s, int) or s < 1 for s in sizes):
        raise ValueError(f"{name} = {value!r}")
    return tuple(sizes)


def activation(settings: Settings, name: str = "activation") -> str:
    """The name of an activation; "linear" where there is none."""
    value = settings.get(name)
    if isinstance(value, Mapping):
        value = value.get("config", value.get("class_name"))
    return str(value or "linear") if not isinstance(value, Mapping) else "linear"


def activated(settings: Settings, elements: int) -> tuple[bool, float]:
    """Whether the backward pass reads the output, and what an activation keeps beside it."""
    kind = activation(settings)
    if kind == "linear":
        return False, 0.0
    if kind in FROM_OUTPUT:
        return True, 0.0
    return False, (1 + KEPT_BY_ACTIVATION.get(kind, 1.0)) * elements


@rule("InputLayer")
def input_layer(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A batch comes in; its shape is settled by the caller."""
    return Made(shapes[0])


@rule("Dense", "EinsumDense")
def dense(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A matrix product over the last axis."""
    if spec.kind == "EinsumDense":
        raise ValueError("EinsumDense: its equation is not read; use Dense")
    units, inner = whole(spec.settings, "units"), shapes[0][-1]
    shape = (*shapes[0][:-1], units)
    kept, saved = activated(spec.settings, prod(shape))
    weights = (inner * units, *((units,) if spec.settings.get("use_bias", True) else ()))
    return Made(shape, weights, keeps_input=True, keeps_output=kept, saved=saved)


@rule("Embedding")
def embedding(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A row of the table for each token."""
    width, rows = whole(spec.settings, "output_dim"), whole(spec.settings, "input_dim")
    return Made((*shapes[0], width), (rows * width,))


@rule("BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization")
def normalisation(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Scale and shift of a feature; batch norm keeps moving statistics too.

    Layer and group norms are composed of operators, of which one keeps a tensor of X's size.
    """
    width = shapes[0][-1]
    asked = spec.settings.get("scale", True), spec.settings.get("center", True)
    weights = (width,) * sum(bool(each) for each in asked)
    batch = spec.kind == "BatchNormalization"
    composed = 0 if batch else prod(shapes[0])
    fixed = 2 * width if batch else 0
    return Made(shapes[0], weights, fixed, keeps_input=True, saved=composed)


@rule("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianDropout", "AlphaDropout")
def dropout(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A mask of a byte an element, and the random numbers it is made of for a moment."""
    size = prod(shapes[0])
    return Made(shapes[0], saved=size / 4, workspace=size)


@rule("Activation", "ReLU", "Softmax", "LeakyReLU", "ELU", "ThresholdedReLU")
def activation_layer(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """An activation by itself."""
    size = prod(shapes[0])
    named = spec.settings if spec.kind == "Activation" else {"activation": "relu"}
    kept, saved = activated(named, size)
    return Made(shapes[0], keeps_output=kept, saved=saved)


@rule("PReLU")
def parametric(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A slope of its own for each element, or shared over axes."""
    shared = spec.settings.get("shared_axes") or ()
    width = prod(1 if i + 1 in shared else s for i, s in enumerate(shapes[0]))
    return Made(shapes[0], (width,), keeps_input=True)


@rule("Flatten")
def flatten(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Another view of the same elements."""
    return Made((prod(shapes[0]),), alias=True)


@rule("Reshape")
def reshape(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Another view; one size may be -1."""
    target = [int(size) for size in spec.settings["target_shape"]]
    rest = prod(shapes[0]) // max(1, prod(size for size in target if size > 0))
    return Made(tuple(size if size > 0 else rest for size in target), alias=True)


@rule("Permute")
def permute(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Axes in another order: a copy."""
    return Made(tuple(shapes[0][axis - 1] for axis in spec.settings["dims"]))


@rule("RepeatVector")
def repeat_vector(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A row several times."""
    return Made((whole(spec.settings, "n"), *shapes[0]))


@rule("Identity", "Rescaling", "Normalization", "ActivityRegularization", "Masking")
@rule("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast")
@rule("RandomBrightness", "GaussianNoise")
def pointwise(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Element by element, with nothing kept."""
    return Made(shapes[0], alias=spec.kind in ("Identity", "ActivityRegularization", "Masking"))


@rule("Resizing", "CenterCrop", "RandomCrop")
def resizing(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Images of another size."""
    size = (whole(spec.settings, "height"), whole(spec.settings, "width"))
    return Made((*size, shapes[0][-1]))


@rule("Add", "Average", "Maximum", "Minimum", "Subtract")
def added(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A sum needs nothing of its inputs; an extreme does."""
    return Made(shapes[0], keeps_input=spec.kind in ("Maximum", "Minimum"))


@rule("Multiply")
def multiplied(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A product needs both factors."""
    return Made(max(shapes, key=prod), keeps_input=True)


@rule("Concatenate")
def concatenated(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Side by side along an axis, the last unless told."""
    axis = int(spec.settings.get("axis", -1))
    at = len(shapes[0]) + axis if axis < 0 else axis - 1
    joined = sum(shape[at] for shape in shapes)
    return Made((*shapes[0][:at], joined, *shapes[0][at + 1 :]))


@rule("Dot")
def dot(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A product over the last axis of vectors."""
    return Made((*shapes[0][:-1], *shapes[1][:-1]) or (1,), keeps_input=True)
