"""What a batch itself holds on the GPU: token ids or pixels, labels, a padding mask."""

from __future__ import annotations

from collections.abc import Mapping

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.ops import INT64
from sizewright_server.estimation.profile import Column, elements, round_up
from sizewright_server.estimation.tape import Shape

PER_SAMPLE = ("sequence-classification", "image-classification")


def input_bytes(
    architecture: Architecture,
    dims: Mapping[str, Column],
    *,
    width: int,
    labels: bool,
    padded: bool,
) -> Column:
    """Bytes of a batch; `dims` are those of the whole model, `width` that of its pixels."""
    two_stacks = any(run.sizes.stack == "decoder" for run in architecture.runs)
    shapes: list[tuple[Shape, int]] = []
    if architecture.sizes.patches:
        shapes.append((("B", "PIX"), width))
    else:
        shapes.append((("B", "S"), INT64))
    if padded:
        shapes.append((("B", "S"), INT64))
    if two_stacks:
        # Decoder ids: given, or the labels shifted.
        shapes.append((("B", "TARGET"), INT64))
    if labels and architecture.head.kind in PER_SAMPLE:
        shapes.append((("B",), INT64))
    elif labels:
        shapes.append((("B", "TARGET" if two_stacks else "S"), INT64))
    total = round_up(elements(shapes[0][0], dims) * shapes[0][1])
    for shape, itemsize in shapes[1:]:
        total = total + round_up(elements(shape, dims) * itemsize)
    return total
