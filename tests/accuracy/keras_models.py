"""The JSON of the small Keras models that the cases name by kind and sizes."""

from __future__ import annotations

import json
from typing import Any

from tests.accuracy.case import Unmapped

Layers = list[tuple[str, dict[str, Any]]]


def keras_json(model: dict[str, Any]) -> str:
    """What model.to_json() would write of a model by kind. Raises Unmapped for another kind."""
    kind = str(model["arch"])
    if kind in _BRANCHED:
        return _branched(_BRANCHED[kind](model), int(model["out"]))
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


#: A layer of a model with branches: kind, settings, and places of the layers that feed it; a
#: negative place counts back.
Branches = list[tuple[str, dict[str, Any], tuple[int, ...]]]


def _branched(layers: Branches, classes: int) -> str:
    """A functional model as Keras writes its layers and the nodes between them."""
    head: tuple[str, dict[str, Any], tuple[int, ...]]
    head = ("Dense", {"units": classes, "activation": "softmax"}, (-1,))
    entries = []
    for at, (kind, config, inputs) in enumerate([*layers, head]):
        fed = [[f"layer_{at + place}", 0, 0, {}] for place in inputs]
        name = f"layer_{at}"
        entry: dict[str, Any] = {"class_name": kind, "name": name}
        entry["config"] = {**config, "name": name}
        entry["inbound_nodes"] = [fed] if fed else []
        entries.append(entry)
    return json.dumps({"class_name": "Functional", "config": {"layers": entries}})


def _residual(model: dict[str, Any]) -> Branches:
    side = int(model["image"])
    layers: Branches = [("InputLayer", {"batch_shape": [None, side, side, 3]}, ())]
    for width in model["channels"]:
        window: dict[str, Any] = {"filters": int(width), "kernel_size": [3, 3], "padding": "same"}
        layers += [
            ("Conv2D", {**window, "strides": [2, 2]}, (-1,)),
            ("Conv2D", {**window, "activation": "relu"}, (-1,)),
            ("Conv2D", window, (-1,)),
            ("Add", {}, (-3, -1)),
            ("ReLU", {}, (-1,)),
        ]
    return [*layers, ("GlobalAveragePooling2D", {}, (-1,))]


def _encoder(model: dict[str, Any]) -> Branches:
    width, heads = int(model["d_model"]), int(model["heads"])
    table = {"input_dim": int(model["vocab"]), "output_dim": width}
    layers: Branches = [
        ("InputLayer", {"batch_shape": [None, int(model["seq"])]}, ()),
        ("Embedding", table, (-1,)),
    ]
    attention = {"num_heads": heads, "key_dim": width // heads, "dropout": 0.1}
    for _ in range(int(model["layers"])):
        layers += [
            ("MultiHeadAttention", attention, (-1, -1)),
            ("Add", {}, (-2, -1)),
            ("LayerNormalization", {}, (-1,)),
            ("Dense", {"units": int(model["ffn"]), "activation": "gelu"}, (-1,)),
            ("Dense", {"units": width}, (-1,)),
            ("Add", {}, (-3, -1)),
            ("LayerNormalization", {}, (-1,)),
        ]
    return [*layers, ("GlobalAveragePooling1D", {}, (-1,))]


_BRANCHED = {"residual": _residual, "transformer": _encoder}


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
