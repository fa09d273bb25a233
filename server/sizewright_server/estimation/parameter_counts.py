"""Parameters of a whole model."""

from __future__ import annotations

from collections.abc import Sequence

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.dims import Dims
from sizewright_server.estimation.lowering import Segment, tied_count
from sizewright_server.estimation.tensor_tables import Tensors


def count_parameters(
    architecture: Architecture,
    segments: Sequence[Segment],
    dims: Dims,
    tensors: Tensors,
    further: int = 0,
) -> tuple[int, int]:
    """Parameters of the whole model, tied tensors once: all of them, and those that train.

    `tensors` are the segments' under `dims`. Each of `further` layers that predict more tokens is
    one like the last, with a projection of two hidden states to one and three norms.
    """
    every = tensors.sums(tensors.table.elements)[:, 0].tolist()
    trained = tensors.sums(tensors.table.elements * tensors.rows.trained)[:, 0].tolist()
    totals = [
        sum(segment.count * own for segment, own in zip(segments, counts, strict=True))
        for counts in (every, trained)
    ]
    if further:
        more = _further(architecture)
        totals[0] += further * (every[-2] + more)
        head_trains = segments[-1].program.parameters[-1].trained
        totals[1] += further * (trained[-2] + (more if head_trains else 0))
    tied = 0
    if architecture.head.shares_table:
        tied = int(tied_count(architecture, dims.of(segments[0].sizes))[0])
    trains_table = all(p.trained for p in segments[0].program.parameters[:1])
    return totals[0] - tied, totals[1] - (tied if trains_table else 0)


def _further(architecture: Architecture) -> int:
    """The parameters of a layer that predicts further tokens beyond those of the last layer."""
    hidden = architecture.sizes.hidden
    tensors = 1 if architecture.style.norm.startswith("rms") else 2
    return (2 * hidden + 3 * tensors) * hidden
