"""Room for LoRA adapters that an engine keeps on each GPU, whether an adapter is loaded or not.

Source: vllm/lora/layers of 0.33 (`create_lora_weights`): A is whole on every rank where a layer's
outputs are divided, and B where its inputs are; the vocabulary's tables are never divided.
"""

from __future__ import annotations

from sizewright_server.estimation.serving.model import ServedModel, Tensor
from sizewright_server.estimation.serving.run import Engine
from sizewright_server.estimation.serving.weights import stage_layers
from sizewright_server.estimation.workload import Layout

#: Layers of a network that adapters change.
ADAPTED = ("attention", "linear", "experts")


def slot_elements(model: ServedModel, engine: Engine, layout: Layout, stage: int) -> int:
    """Elements of rank 1 that one adapter's slot takes on a rank of a stage."""
    total = 0
    for i in stage_layers(len(model.order), layout.pp, stage):
        for tensor in model.layers[model.order[i]].tensors:
            if tensor.role in ADAPTED:
                total += _tensor_elements(tensor, model, layout)
    if engine == "vllm":
        # Embedding and head have slots too: A or B of every word, and the other of the width.
        ends = int(stage == 0) + int(stage == layout.pp - 1)
        total += ends * (model.vocab + model.hidden)
    return total


def _tensor_elements(tensor: Tensor, model: ServedModel, layout: Layout) -> int:
    """A and B of a matrix: `rows` outputs are divided, or `columns` inputs where it ends in the
    stream."""
    count, tp = tensor.count, layout.tp
    if tensor.role == "experts":
        count = -(-count // layout.ep)
    if tensor.split == "none":
        tp = 1
    if tensor.rows == model.hidden:
        return count * (tensor.columns // tp + tensor.rows)
    return count * (tensor.columns + tensor.rows // tp)
