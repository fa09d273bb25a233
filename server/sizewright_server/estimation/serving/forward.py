"""Activations of one forward pass of a serving engine: no gradients, buffers reused by layer."""

from __future__ import annotations

from sizewright_server.estimation.serving.model import ServedModel
from sizewright_server.estimation.serving.quantisation import Scheme


def layer_bytes(
    model: ServedModel, tokens: int, itemsize: int, tp: int, hidden_buffers: float
) -> int:
    """The widest moment of a layer: both halves of the feed-forward, its product, and the stream.

    With a fused activation the gate and up halves (2 f) and their product (f) are there at once;
    without a gate the width and its activation. `hidden_buffers` widths of the stream and of
    attention's results are beside them.
    """
    widths = 3 if model.gated else 2
    width = widths * -(-max(model.ffn, 1) // tp)
    return int(tokens * (width + hidden_buffers * model.hidden) * itemsize)


def expert_bytes(model: ServedModel, scheme: Scheme, tokens: int, itemsize: int, ranks: int) -> int:
    """Workspaces of fused experts: the larger of both products, the activation, and the result.

    MXFP4 kernels fuse them into one pass that keeps none.
    """
    experts = model.experts
    if experts is None or scheme.name == "mxfp4":
        return 0
    width = -(-experts.width // ranks)
    rows = tokens * experts.per_token
    first = max(2 * width, model.hidden)
    return int((rows * (first + width) + tokens * model.hidden) * itemsize)


def encoder_bytes(model: ServedModel, tokens: int, itemsize: int) -> int:
    """Results of the vision tower for a full budget of tokens, kept while the text is profiled."""
    if model.encoder is None:
        return 0
    return tokens * model.hidden * itemsize


def tower_bytes(model: ServedModel, itemsize: int) -> int:
    """The tower's own widest moment over its largest image."""
    tower = model.encoder
    if tower is None:
        return 0
    return tower.patches * (2 * tower.ffn + 4 * tower.hidden) * itemsize


def sampler_bytes(rows: int, vocab: int, per_logit: float, buffer_rows: float) -> int:
    """The sampler over `rows` sequences: logits and what top-k and top-p keep beside them."""
    return int(rows * vocab * per_logit + buffer_rows * vocab * 4)
