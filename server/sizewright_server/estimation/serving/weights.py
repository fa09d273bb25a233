"""Weight bytes of one rank: what each part takes under tensor, expert and pipeline parallelism."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sizewright_server.estimation.serving.model import ServedModel, Split, Tensor
from sizewright_server.estimation.serving.quantisation import Scheme

#: vLLM and SGLang pad vocabularies to a multiple of this (vocab_parallel_embedding.py).
VOCABULARY_MULTIPLE = 64


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where a rank stands: tensor- and expert-parallel sizes, and its stage of the pipeline.

    `pads` is off where the vocabulary is not padded (transformers); `attention_tp` is set where
    attention is divided over fewer ranks than the rest (data-parallel attention).
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1
    stage: int = 0
    pads: bool = True
    attention_tp: int | None = None


@dataclass(frozen=True, slots=True)
class RankWeights:
    """Bytes of one rank's weights by what they are."""

    layers: int
    experts: int
    embedding: int
    head: int
    encoder: int
    rotary: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.layers + self.experts + self.embedding + self.head + self.encoder + self.rotary


def stage_layers(count: int, pp: int, stage: int) -> range:
    """The layers of a stage: equal shares, what is left over to the stages before the last.

    vLLM's get_pp_indices gives one more layer to the last stages but the very last, which has the
    head.
    """
    share, left = divmod(count, pp)
    sizes = [share] * pp
    for i in range(2, left + 2):
        sizes[-i] += 1
    first = sum(sizes[:stage])
    return range(first, first + sizes[stage])


def rank_weights(
    model: ServedModel, scheme: Scheme, itemsize: int, ranks: Ranks, *, rotary_itemsize: int
) -> RankWeights:
    """Weights of the rank, tied tensors once on a stage that has both."""

    def size(tensors: tuple[Tensor, ...], role: str | None = None) -> int:
        return sum(
            _share(tensor, scheme, itemsize, model, ranks)
            for tensor in tensors
            if role is None or (tensor.role == "experts") == (role == "experts")
        )

    held = [model.order[i] for i in stage_layers(len(model.order), ranks.pp, ranks.stage)]
    kinds = {kind: held.count(kind) for kind in set(held)}
    layers = sum(n * size(model.layers[kind].tensors, "others") for kind, n in kinds.items())
    experts = sum(n * size(model.layers[kind].tensors, "experts") for kind, n in kinds.items())
    first, last = ranks.stage == 0, ranks.stage == ranks.pp - 1
    tied_copy = model.embedding[:1] if model.tied and last and not first else ()
    table = model.rotary_positions * model.rotary_dim * rotary_itemsize
    return RankWeights(
        layers=layers,
        experts=experts,
        embedding=size(model.embedding) if first else size(tied_copy),
        head=size((*model.head, *model.final_norm)) if last else 0,
        encoder=size(model.encoder.tensors) if model.encoder and first else 0,
        rotary=table,
    )


def _share(tensor: Tensor, scheme: Scheme, itemsize: int, model: ServedModel, ranks: Ranks) -> int:
    """Bytes of a rank's share of a tensor."""
    if tensor.split == "vocabulary" and ranks.pads:
        multiple = math.lcm(VOCABULARY_MULTIPLE, ranks.tp)
        rows = -(-tensor.rows // multiple) * multiple
        return rows * tensor.columns * tensor.count * (tensor.itemsize or itemsize) // ranks.tp
    whole = scheme.tensor_size(tensor, itemsize)
    return whole // divisor(tensor.split, model, ranks)


def divisor(split: Split, model: ServedModel, ranks: Ranks) -> int:
    """Over how many ranks a tensor is divided."""
    attention = ranks.attention_tp or ranks.tp
    if split == "kv-heads":
        return min(attention, model.kv_heads)
    if split in ("heads", "latent-heads"):
        return attention
    if split == "experts":
        return ranks.tp * ranks.ep
    return 1 if split == "none" else ranks.tp
