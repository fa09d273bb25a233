"""The JSON of the small Keras models that the cases name by kind and sizes."""

from __future__ import annotations

import json
from typing import Any

from tests.accuracy.case import Unmapped

Layers = list[tuple[str, dict[str, Any]]]


def keras_json(model: dict[str, Any]) -> str:
    """What model.to_json() would write of a model by kind. Raises Unmapped for another kind."""
    kind = str(model["arch"])
    made = _KINDS.get(kind)
    if made is None:
        raise Unmapped(f"Keras models of kind {kind!r} are not known")
    layers = made(model)
    layers.append(("Dense", {"units": int(model["out"]), "activation": "softmax"}))
    entries = [
        {"class_name": name, "config": {"name": f"layer_{at}", **config}}
        for at, (name, config) in enumerate(layers)
    ]
    return json.dumps({"class_name": "Sequential", "config": {"layers": entries}})


def _input(*shape: int) -> tuple[str, dict[str, Any]]:
    return ("InputLayer", {"batch_shape": [None, *shape]})


def _mlp(model: dict[str, Any]) -> Layers:
    layers: Layers = [_input(int(model["in"]))]
    for width in model["hidden"]:
        layers.append(("Dense", {"units": int(width), "activation": "relu"}))
        if model.get("dropout"):
            layers.append(("Dropout", {"rate": model["dropout"]}))
    return layers


def _cnn(model: dict[str, Any]) -> Layers:
    side = int(model["image"])
    layers: Layers = [_input(side, side, 3)]
    window = {"kernel_size": [3, 3], "padding": "same"}
    for width in model["channels"]:
        if model["arch"] == "cnn":
            layers.append(("Conv2D", {"filters": int(width), **window, "activation": "relu"}))
        else:
            layers.append(("Conv2D", {"filters": int(width), **window, "use_bias": False}))
            layers += [("BatchNormalization", {}), ("ReLU", {})]
        layers.append(("MaxPooling2D", {"pool_size": [2, 2]}))
    return [*layers, ("GlobalAveragePooling2D", {})]


def _recurrent(model: dict[str, Any]) -> Layers:
    kind = {"lstm": "LSTM", "gru": "GRU", "text": "LSTM"}[str(model["arch"])]
    count = int(model.get("layers", 1))
    layers: Layers = [_input(int(model["seq"]), int(model["in"]))]
    if model["arch"] == "text":
        table = {"input_dim": int(model["vocab"]), "output_dim": int(model["in"])}
        layers = [_input(int(model["seq"])), ("Embedding", table)]
    for at in range(count):
        config = {"units": int(model["hidden"]), "return_sequences": at < count - 1}
        layers.append((kind, config))
    return layers


_KINDS = {
    "mlp": _mlp,
    "cnn": _cnn,
    "cnn-bn": _cnn,
    "lstm": _recurrent,
    "gru": _recurrent,
    "text": _recurrent,
}
