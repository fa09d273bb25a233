"""A Keras model as a graph of tensors: weights, what training keeps, and what lives at the peak."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from sizewright_server.estimation.keras import sequences, spatial
from sizewright_server.estimation.keras.description import LayerSpec, read_model, refuse
from sizewright_server.estimation.keras.layers import Made, Shape, lower

#: Importing these modules registers their layers.
RULE_MODULES = (sequences, spatial)


@dataclass(frozen=True, slots=True)
class Node:
    """A lowered layer with the places of the layers that feed it."""

    spec: LayerSpec
    made: Made
    inputs: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Elements of the output, per sample."""
        return prod(self.made.shape)


@dataclass(frozen=True, slots=True)
class KerasNetwork:
    """Nodes in order. Elements are per sample, parameters whole counts."""

    nodes: tuple[Node, ...]

    @property
    def trainable(self) -> int:
        """Parameters that training changes."""
        return sum(sum(node.made.weights) for node in self.nodes)

    @property
    def parameters(self) -> int:
        """All parameters, as count_params() says."""
        return self.trainable + sum(node.made.fixed for node in self.nodes)

    @property
    def weight_elements(self) -> tuple[int, ...]:
        """Elements of every trained tensor."""
        return tuple(size for node in self.nodes for size in node.made.weights)

    @property
    def input_elements(self) -> int:
        """Elements of all inputs of a sample."""
        return sum(node.elements for node in self.nodes if node.spec.kind == "InputLayer")

    @property
    def output_elements(self) -> int:
        """Elements of the last layer's output."""
        return self.nodes[-1].elements

    @property
    def convolutions(self) -> tuple[Node, ...]:
        """The layers that are convolutions."""
        return tuple(node for node in self.nodes if node.made.convolution)

    @property
    def steps(self) -> int:
        """The longest loop of a recurrent layer; 0 without one."""
        return max((node.made.steps for node in self.nodes), default=0)

    def kept_elements(self) -> tuple[float, ...]:
        """Per node: its output if the backward pass reads it, and what the layer keeps beside."""
        read = [node.made.keeps_output for node in self.nodes]
        for node in self.nodes:
            if node.made.keeps_input:
                for at in node.inputs:
                    read[self._origin(at)] = True
        return tuple(
            node.made.saved + (node.elements if kept and not node.made.alias else 0)
            for node, kept in zip(self.nodes, read, strict=True)
        )

    def _origin(self, at: int) -> int:
        while self.nodes[at].made.alias and self.nodes[at].inputs:
            at = self.nodes[at].inputs[0]
        return at

    def inference_elements(self) -> float:
        """Most elements alive in a forward pass: each output until its last reader is done."""
        last = list(range(len(self.nodes)))
        for at, node in enumerate(self.nodes):
            for source in node.inputs:
                last[self._origin(source)] = at
        alive, worst = 0.0, 0.0
        for at, node in enumerate(self.nodes):
            size = 0 if node.made.alias else node.elements
            worst = max(worst, alive + size + node.made.workspace)
            alive += size
            alive -= sum(
                self.nodes[i].elements
                for i in range(at + 1)
                if last[i] == at and not self.nodes[i].made.alias and i < at
            )
        return worst

    def training_elements(self) -> float:
        """Most elements alive in a forward and a backward pass.

        Backward, at each layer: what is kept of it and of those before, the gradient that came and
        the one that goes on, and its workspace.
        """
        kept = self.kept_elements()
        held, worst = 0.0, 0.0
        for node, size in zip(self.nodes, kept, strict=True):
            passing = max(0.0, node.elements - size)
            worst = max(worst, held + size + passing + node.made.workspace)
            held += size
        for node, size in zip(reversed(self.nodes), reversed(kept), strict=True):
            onward = sum(self.nodes[at].elements for at in node.inputs if self._feeds(at))
            worst = max(worst, held + node.elements + onward + node.made.workspace)
            held -= size
        return worst

    def _feeds(self, at: int) -> bool:
        """Whether a layer takes a gradient: the inputs do not."""
        return bool(self.nodes[at].inputs)


def network_from_json(text: str, *, length: int = 0) -> KerasNetwork:
    """The network of a model's JSON; `length` fills in for a size that is None.

    Raises UnsupportedWorkload.
    """
    places: dict[str, int] = {}
    nodes: list[Node] = []
    for spec in read_model(text):
        inputs = tuple(places[name] for name in spec.inputs)
        if inputs and spec.kind != "InputLayer":
            shapes = tuple(nodes[at].made.shape for at in inputs)
        else:
            shapes = (nodes[inputs[0]].made.shape if inputs else _input_shape(spec, length),)
        if not inputs and spec.kind != "InputLayer":
            inputs = (_add_input(nodes, spec, shapes[0]),)
        places[spec.name] = len(nodes)
        nodes.append(Node(spec, lower(spec, shapes), inputs))
    return KerasNetwork(tuple(nodes))


def _add_input(nodes: list[Node], spec: LayerSpec, shape: Shape) -> int:
    """An input of its own for a first layer that carries the input's shape, as Keras 2 allows."""
    nodes.append(Node(LayerSpec(f"{spec.name}/input", "InputLayer", {}, ()), Made(shape), ()))
    return len(nodes) - 1


def _input_shape(spec: LayerSpec, length: int) -> Shape:
    for name in ("batch_shape", "batch_input_shape"):
        given: Any = spec.settings.get(name)
        if isinstance(given, list | tuple) and len(given) >= 2:
            sizes = [length if size is None else size for size in given[1:]]
            if any(not isinstance(size, int) or size < 1 for size in sizes):
                raise refuse(
                    f"the input of {spec.name!r} leaves a size open: {list(given)}; "
                    "say seq_len, or input_tokens for inference"
                )
            return tuple(sizes)
    raise refuse(f"layer {spec.name!r} says no input shape; build the model before to_json()")
