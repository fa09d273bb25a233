"""Parameters of a whole model."""

from __future__ import annotations

from collections.abc import Sequence

from sizewright_server.estimation.architecture import Architecture, Sizes
from sizewright_server.estimation.dims import Dims
from sizewright_server.estimation.lowering import Segment, parameter_count, tied_count


def count_parameters(
    architecture: Architecture,
    segments: Sequence[Segment],
    dims: Dims,
    further: int = 0,
    *,
    trained: bool = False,
) -> int:
    """Parameters of the whole model, tied tensors once; with `trained` only those that train.

    Each of `further` layers that predict more tokens is one like the last, with a projection of two
    hidden states to one and three norms.
    """
    counted: dict[tuple[int, Sizes], int] = {}
    total = further and further * _further(architecture, segments, dims, trained=trained)
    for segment in segments:
        key = (id(segment.program), segment.sizes)
        if key not in counted:
            made = parameter_count(segment, dims.of(segment.sizes), trained=trained)
            counted[key] = int(made[0])
        total += segment.count * counted[key]
    if trained and not all(p.trained for p in segments[0].program.parameters[:1]):
        return total
    return total - int(tied_count(architecture, dims.of(segments[0].sizes))[0])


def _further(
    architecture: Architecture, segments: Sequence[Segment], dims: Dims, *, trained: bool
) -> int:
    last, hidden = segments[-2], architecture.sizes.hidden
    one = int(parameter_count(last, dims.of(last.sizes), trained=trained)[0])
    if trained and not segments[-1].program.parameters[-1].trained:
        return one
    tensors = 1 if architecture.style.norm.startswith("rms") else 2
    return one + (2 * hidden + 3 * tensors) * hidden
