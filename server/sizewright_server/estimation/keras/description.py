"""Reads what `model.to_json()` wrote: layers, and which layer feeds which (Keras 2 and 3)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sizewright_server.estimation.problems import UnsupportedWorkload, Violation

FIELD = "workload.model.keras"
MODEL_KINDS = ("Sequential", "Functional", "Model")
MOST_LAYERS = 20_000


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer: its kind, its settings, and the names of the layers whose outputs it takes."""

    name: str
    kind: str
    settings: Mapping[str, Any]
    inputs: tuple[str, ...]


def refuse(words: str) -> UnsupportedWorkload:
    """The error for a model that cannot be read."""
    return UnsupportedWorkload(Violation(FIELD, words))


def read_model(text: str) -> tuple[LayerSpec, ...]:
    """The layers in an order in which each comes after its inputs. Raises UnsupportedWorkload."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refuse(f"is not JSON: {error}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("config"), dict):
        raise refuse("must be what model.to_json() writes: an object with class_name and config")
    layers = tuple(_model(tree, "", ()))
    if not layers:
        raise refuse("holds no layer")
    if len(layers) > MOST_LAYERS:
        raise refuse(f"has more than {MOST_LAYERS:,} layers")
    return _ordered(layers)


def _model(tree: Mapping[str, Any], prefix: str, fed_by: tuple[str, ...]) -> Iterator[LayerSpec]:
    kind, config = str(tree.get("class_name")), tree.get("config")
    if kind not in MODEL_KINDS or not isinstance(config, Mapping):
        raise refuse(f"class {kind!r} is no model of layers; use a Sequential or Functional model")
    entries = config.get("layers")
    if not isinstance(entries, list):
        raise refuse("config.layers must be a list")
    before = fed_by
    for entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping):
            raise refuse("each of config.layers must be an object with class_name and config")
        name = prefix + str(entry.get("name") or entry["config"].get("name") or entry["class_name"])
        named = _inbound(entry.get("inbound_nodes"))
        if kind == "Sequential":
            inputs = before
        elif named:
            inputs = tuple(prefix + each for each in named)
        else:
            inputs = fed_by
        yield from _layer(entry, name, inputs)
        before = (name,)


def _layer(entry: Mapping[str, Any], name: str, inputs: tuple[str, ...]) -> Iterator[LayerSpec]:
    """A layer; a model inside the model as its own layers, and an end that bears its name."""
    if entry["class_name"] not in MODEL_KINDS:
        yield LayerSpec(name, str(entry["class_name"]), entry["config"], inputs)
        return
    inner = tuple(_model(entry, name + "/", inputs))
    yield from inner
    last = inner[-1].name if inner else name
    yield LayerSpec(name, "Identity", {}, (last,))


def _inbound(nodes: Any) -> tuple[str, ...]:
    """The names of layers a node takes, first node alone: Keras 3 objects or Keras 2 lists."""
    if not isinstance(nodes, list) or not nodes:
        return ()
    found: list[str] = []
    _collect(nodes[0], found)
    return tuple(dict.fromkeys(found))


def _collect(node: Any, found: list[str]) -> None:
    if isinstance(node, Mapping):
        history = node.get("keras_history")
        if isinstance(history, list) and history:
            found.append(str(history[0]))
            return
        for value in node.values():
            _collect(value, found)
    elif isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
            found.append(node[0])
            return
        for value in node:
            _collect(value, found)


def _ordered(layers: tuple[LayerSpec, ...]) -> tuple[LayerSpec, ...]:
    """Topological order; a layer of an unknown name, or a circle, is refused."""
    known = {layer.name: layer for layer in layers}
    done: dict[str, LayerSpec] = {}
    waiting = list(layers)
    while waiting:
        ready = [each for each in waiting if all(name in done for name in each.inputs)]
        if not ready:
            missing = sorted({n for each in waiting for n in each.inputs if n not in known})
            words = f"names no layer {missing[0]!r}" if missing else "its layers form a circle"
            raise refuse(words)
        done.update((each.name, each) for each in ready)
        waiting = [each for each in waiting if each.name not in done]
    return tuple(done.values())
