"""Keras jobs on the CPU, on TensorFlow or the torch backend."""

from __future__ import annotations

import os
from typing import Any

from reading import Marks


def run(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    """Builds the model and fits, predicts or evaluates over arrays or a tf.data pipeline."""
    os.environ["KERAS_BACKEND"] = workload.get("backend", "tensorflow")
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        import tensorflow  # noqa: F401
    import keras
    import numpy as np

    marks.set("imports")
    spec = workload["model"]
    rng = np.random.default_rng(0)
    inputs = _inputs(rng, workload["rows"], spec)
    labels = rng.integers(0, spec["out"], workload["rows"])
    model = _build(keras, spec)
    marks.set("model_built")
    return _operate(workload, model, inputs, labels, marks)


def _inputs(rng: Any, rows: int, spec: dict[str, Any]) -> Any:
    """Samples, made in slices: token numbers for what has a vocabulary, else floats."""
    import numpy as np

    tokens = "vocab" in spec
    inputs = np.empty((rows, *_shape(spec)), dtype=np.int32 if tokens else np.float32)
    for start in range(0, rows, 1000):
        part = inputs[start : start + 1000]
        if tokens:
            part[:] = rng.integers(0, spec["vocab"], part.shape)
        else:
            part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    return inputs


def _operate(
    workload: dict[str, Any], model: Any, inputs: Any, labels: Any, marks: Marks
) -> dict[str, Any]:
    options = {"batch_size": workload["batch"], "verbose": 0}
    model.compile(
        optimizer=workload.get("optimizer", "adam"), loss="sparse_categorical_crossentropy"
    )
    if workload["op"] == "predict":
        model.predict(inputs, **options)
    elif workload.get("pipeline") == "tfdata":
        import tensorflow as tf

        table = tf.data.Dataset.from_tensor_slices((inputs, labels))
        marks.set("from_tensor_slices")
        table = table.batch(workload["batch"]).prefetch(2)
        model.fit(table, epochs=1, steps_per_epoch=workload.get("max_steps"), verbose=0)
    else:
        steps = workload.get("max_steps")
        model.fit(inputs, labels, epochs=1, steps_per_epoch=steps, **options)
    marks.set(workload["op"])
    return {"parameters": int(model.count_params()), "json": model.to_json()}


def _shape(spec: dict[str, Any]) -> tuple[int, ...]:
    if spec["arch"] == "mlp":
        return (spec["in"],)
    if spec["arch"] in ("cnn", "cnn-bn", "residual"):
        return (spec["image"], spec["image"], 3)
    if spec["arch"] in ("text", "transformer"):
        return (spec["seq"],)
    return (spec["seq"], spec["in"])


def _build(keras: Any, spec: dict[str, Any]) -> Any:
    """A model by kind; one of `saved` is read from the JSON it was saved as."""
    if spec["arch"] in ("residual", "transformer"):
        return _functional(keras, spec)
    layers: list[Any] = [keras.Input(_shape(spec))]
    if spec["arch"] == "mlp":
        for width in spec["hidden"]:
            layers.append(keras.layers.Dense(width, activation="relu"))
            if spec.get("dropout"):
                layers.append(keras.layers.Dropout(spec["dropout"]))
    elif spec["arch"].startswith("cnn"):
        for width in spec["channels"]:
            if spec["arch"] == "cnn":
                layers.append(keras.layers.Conv2D(width, 3, padding="same", activation="relu"))
            else:
                layers += [
                    keras.layers.Conv2D(width, 3, padding="same", use_bias=False),
                    keras.layers.BatchNormalization(),
                    keras.layers.ReLU(),
                ]
            layers.append(keras.layers.MaxPooling2D())
        layers.append(keras.layers.GlobalAveragePooling2D())
    else:
        if spec["arch"] == "text":
            layers.append(keras.layers.Embedding(spec["vocab"], spec["in"]))
        kinds = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "text": keras.layers.LSTM}
        for i in range(spec["layers"]):
            returned = i < spec["layers"] - 1
            layers.append(kinds[spec["arch"]](spec["hidden"], return_sequences=returned))
    return keras.Sequential([*layers, keras.layers.Dense(spec["out"], activation="softmax")])


def _functional(keras: Any, spec: dict[str, Any]) -> Any:
    inputs = keras.Input(_shape(spec))
    made = inputs
    if spec["arch"] == "residual":
        for width in spec["channels"]:
            made = keras.layers.Conv2D(width, 3, padding="same", strides=2)(made)
            side = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(made)
            side = keras.layers.Conv2D(width, 3, padding="same")(side)
            made = keras.layers.ReLU()(keras.layers.Add()([made, side]))
        made = keras.layers.GlobalAveragePooling2D()(made)
    else:
        made = keras.layers.Embedding(spec["vocab"], spec["d_model"])(made)
        for _ in range(spec["layers"]):
            size = spec["d_model"] // spec["heads"]
            side = keras.layers.MultiHeadAttention(spec["heads"], size, dropout=0.1)(made, made)
            made = keras.layers.LayerNormalization()(keras.layers.Add()([made, side]))
            side = keras.layers.Dense(spec["ffn"], activation="gelu")(made)
            side = keras.layers.Dense(spec["d_model"])(side)
            made = keras.layers.LayerNormalization()(keras.layers.Add()([made, side]))
        made = keras.layers.GlobalAveragePooling1D()(made)
    return keras.Model(inputs, keras.layers.Dense(spec["out"], activation="softmax")(made))
