"""Keras layers on sequences: recurrent cells and attention."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from sizewright_server.estimation.keras.description import LayerSpec
from sizewright_server.estimation.keras.layers import Made, Shape, lower, rule, whole

GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
#: Tensors of the state's width that a step keeps: activated gates, cell and its tanh, state, and
#: the products between them (keras.src.layers.rnn, while-loop gradients).
KEPT_PER_STEP = {"LSTM": 8, "GRU": 6, "SimpleRNN": 2}


@rule("LSTM", "GRU", "SimpleRNN")
def recurrent(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """A cell over the steps; its input once more with time first."""
    steps, inner = shapes[0][-2:]
    width, gates = whole(spec.settings, "units"), GATES[spec.kind]
    biases = 2 if spec.kind == "GRU" and spec.settings.get("reset_after", True) else 1
    bias = (biases * gates * width,) if spec.settings.get("use_bias", True) else ()
    weights = (gates * width * inner, gates * width * width, *bias)
    shape = (steps, width) if spec.settings.get("return_sequences") else (width,)
    kept = steps * (KEPT_PER_STEP[spec.kind] * width + inner)
    return Made(
        shape,
        weights,
        keeps_input=True,
        saved=kept,
        workspace=steps * (inner + gates * width),
        steps=steps,
    )


@rule("Bidirectional")
def bidirectional(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """The layer twice; its outputs side by side unless told to be summed."""
    made = lower(_inner(spec), shapes)
    joined = spec.settings.get("merge_mode", "concat") == "concat"
    shape = (*made.shape[:-1], 2 * made.shape[-1]) if joined else made.shape
    return replace(
        made,
        shape=shape,
        weights=made.weights * 2,
        saved=2 * made.saved + 2 * prod(made.shape),
        workspace=2 * made.workspace,
    )


@rule("TimeDistributed")
def time_distributed(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """The layer on each step."""
    steps = shapes[0][0]
    made = lower(_inner(spec), (shapes[0][1:],))
    return replace(
        made,
        shape=(steps, *made.shape),
        saved=steps * made.saved,
        workspace=steps * made.workspace,
    )


def _inner(spec: LayerSpec) -> LayerSpec:
    inner: Any = spec.settings["layer"]
    return LayerSpec(spec.name, str(inner["class_name"]), inner["config"], spec.inputs)


@rule("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention")
def attention(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Projections, scores of all pairs, softmax, dropout, and the way back.

    Kept of heads x pairs: softmax, and with dropout a byte mask and the dropped scores. Kept of the
    projections' width: queries (scaled), keys, values and the context.
    """
    settings = spec.settings
    steps, width = shapes[0][-2:]
    others = shapes[1][-2] if len(shapes) > 1 else steps
    grouped = spec.kind != "MultiHeadAttention"
    heads = whole(settings, "num_query_heads" if grouped else "num_heads")
    shared = whole(settings, "num_key_value_heads") if grouped else heads
    size = whole(settings, "head_dim" if grouped else "key_dim")
    values = settings.get("value_dim") or size
    made = (heads * size * width, shared * size * width, shared * values * width)
    weights: tuple[int, ...] = (*made, heads * values * width)
    if settings.get("use_bias", True):
        weights = (*weights, heads * size, shared * size, shared * values, width)
    pairs = heads * steps * others
    dropped = float(settings.get("dropout", settings.get("dropout_rate", 0)) or 0) > 0
    projected = steps * heads * (2 * size + values) + others * shared * (size + values)
    return Made(
        (steps, width),
        weights,
        keeps_input=True,
        saved=projected + pairs * (2.25 if dropped else 1),
        workspace=3 * pairs,
    )


@rule("Attention", "AdditiveAttention")
def plain_attention(spec: LayerSpec, shapes: tuple[Shape, ...]) -> Made:
    """Scores of all pairs without projections."""
    steps, others = shapes[0][-2], shapes[-1][-2]
    pairs = steps * others
    return Made((steps, shapes[-1][-1]), keeps_input=True, saved=pairs, workspace=pairs)
