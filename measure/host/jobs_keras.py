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
    inputs = np.empty((workload["rows"], *_shape(spec)), dtype=np.float32)
    for start in range(0, workload["rows"], 5000):
        part = inputs[start : start + 5000]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    labels = rng.integers(0, spec["out"], workload["rows"])
    model = _build(keras, spec)
    marks.set("model_built")
    return _operate(workload, model, inputs, labels, marks)


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
    return {"parameters": int(model.count_params())}


def _shape(spec: dict[str, Any]) -> tuple[int, ...]:
    if spec["arch"] == "mlp":
        return (spec["in"],)
    if spec["arch"] == "cnn":
        return (spec["image"], spec["image"], 3)
    return (spec["seq"], spec["in"])


def _build(keras: Any, spec: dict[str, Any]) -> Any:
    layers: list[Any] = [keras.Input(_shape(spec))]
    if spec["arch"] == "mlp":
        layers += [keras.layers.Dense(width, activation="relu") for width in spec["hidden"]]
    elif spec["arch"] == "cnn":
        for width in spec["channels"]:
            layers += [
                keras.layers.Conv2D(width, 3, padding="same", activation="relu"),
                keras.layers.MaxPooling2D(),
            ]
        layers.append(keras.layers.GlobalAveragePooling2D())
    else:
        kind = keras.layers.LSTM if spec["arch"] == "lstm" else keras.layers.GRU
        for i in range(spec["layers"]):
            layers.append(kind(spec["hidden"], return_sequences=i < spec["layers"] - 1))
    return keras.Sequential([*layers, keras.layers.Dense(spec["out"], activation="softmax")])
