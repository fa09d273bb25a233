"""The weights of a sharded run as the replay loads them: unit by unit, whole and in shards."""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.profile import ALLOCATION_QUANTUM_BYTES, elements, round_up
from sizewright_server.estimation.tensor_tables import EXPERTS
from sizewright_server.estimation.training import TrainingGroup


@dataclass(frozen=True, slots=True)
class Unit:
    """Bytes of tensors that are loaded together: whole, the rank's shards, and never sharded."""

    whole: list[int]
    kept: list[int]
    unsharded: list[int]

    @property
    def parts(self) -> tuple[list[int], list[int], list[int]]:
        """All three."""
        return self.whole, self.kept, self.unsharded


def unit_of(group: TrainingGroup, number: int) -> Unit:
    """The tensors of one instance of a segment, whole and as the rank keeps them."""
    segment = group.segments[number]
    ways, experts = group.parallel.ways(3), group.parallel.ways(3, expert=True)
    dims = group.dims_of.of(segment.sizes)
    found = Unit([], [], [])
    for parameter in segment.program.parameters:
        whole = elements(parameter.shape, dims)
        part = -(-whole // (experts if EXPERTS in parameter.shape else ways))
        width = group.widths.trained if parameter.trained else group.widths.stored
        stored = parameter.stored
        if stored is not None and int(stored.whole_bytes(whole)[0]):
            found.unsharded.append(int(round_up(stored.whole_bytes(whole))[0]))
        for sizes, count in ((found.whole, whole), (found.kept, part)):
            size = count * width if stored is None else stored.parameter_bytes(count)
            if int(size[0]):
                sizes.append(int(round_up(size)[0]))
    return found


def rounded(size: int) -> int:
    """A request as the allocator rounds it."""
    return -(-size // ALLOCATION_QUANTUM_BYTES) * ALLOCATION_QUANTUM_BYTES
