"""The floating-point operations and bytes a model needs for a sample: what its time depends on.

Source of the counts: Kaplan et al. 2020 (2 operations a parameter and token in the forward pass,
twice that in the backward pass); Korthikanti et al. 2022, appendix, for attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.tensor_tables import EXPERTS, Tensors

#: Multiplication and addition.
PER_PARAMETER = 2
#: Scores and weighted values: two matrix products.
PER_SCORE = 2 * PER_PARAMETER


@dataclass(frozen=True, slots=True)
class Work:
    """Of one sample of `tokens` tokens (1 for a sample without tokens, such as an image).

    `positions` go through the blocks: the tokens, or the patches of an image. `forward_flops` in
    the forward pass alone, `attention_flops` of them of scores and weighted values.
    `active_parameters` are read for every token; `expert_parameters` are those of all experts, and
    `routed_elements` what a token sends to its experts in all blocks that have them.
    """

    tokens: int
    forward_flops: float
    attention_flops: float
    active_parameters: int
    expert_parameters: int
    routed_elements: int
    kv_elements_per_token: int
    layers: int
    hidden: int
    positions: int


def work_of(
    segments: Sequence[Segment], tensors: Tensors, tokens: int, *, causal: bool, further: int = 0
) -> Work:
    """The work of a sample. An embedding is a look-up; of experts only the chosen ones run.

    Each of `further` layers that predict more tokens runs like the last, and the head once more. A
    recurrent layer's scan is left out: beside its projections it is one or two operations of a
    hundred (Gu and Dao 2023, section 3.3.2: some times the states of every channel).
    """
    active, kv, layers, hidden, positions = 0, 0, 0, 0, tokens
    products = scores = 0.0
    experts = routed = 0
    seen = 0.5 if causal else 1.0
    counted: dict[int, tuple[int, int]] = {}
    counts = [segment.count for segment in segments]
    for at in (-2, -1) if further else ():
        counts[at] += further
    for number, (segment, count) in enumerate(zip(segments, counts, strict=True)):
        sizes = segment.sizes
        hidden = max(hidden, sizes.hidden)
        if segment.role != "embedding":
            key = tensors.which[number]
            if key not in counted:
                rows = tensors.table.elements[tensors.of(number), 0]
                counted[key] = _parameters(segment, rows.tolist())
            own, of_experts = counted[key]
            length = tokens if sizes.stack == "decoder" else sizes.patches or tokens
            positions = max(positions, length)
            active += count * own
            experts += count * of_experts
            products += float(PER_PARAMETER * length) * count * own
            if of_experts:
                routed += count * sizes.experts_per_token * sizes.hidden
        if segment.role == "block":
            layers += count
        if segment.role == "block" and segment.attends:
            width = sizes.heads * sizes.head_dim
            reach = min(length, sizes.window) if sizes.window else length
            scores += count * PER_SCORE * seen * length * reach * width
            kv += count * 2 * sizes.kv_heads * sizes.head_dim
    return Work(
        tokens,
        products + scores,
        scores,
        active,
        experts,
        routed,
        kv,
        layers,
        hidden,
        positions,
    )


def _parameters(segment: Segment, elements: Sequence[int]) -> tuple[int, int]:
    """Parameters of an instance that a token meets, and those of all its experts."""
    total = experts = 0
    for parameter, count in zip(segment.program.parameters, elements, strict=False):
        if parameter.shape[0] == EXPERTS:
            experts += count
            count = count * segment.sizes.experts_per_token // segment.sizes.experts
        total += count
    return total, experts
