"""Weight bytes of one rank: what each part takes under tensor, expert and pipeline parallelism."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from sizewright_server.estimation.serving.model import ServedModel, Split, Tensor
from sizewright_server.estimation.serving.quantisation import Scheme

#: vLLM and SGLang pad vocabularies to a multiple of this (vocab_parallel_embedding.py).
VOCABULARY_MULTIPLE = 64

#: Bytes of a group of tensors by how they are divided.
Sizes = Mapping[Split, int]


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


class WeightTable:
    """A model's weights in a stored type, summed by how they are divided: ranks are arithmetic."""

    def __init__(self, model: ServedModel, scheme: Scheme, itemsize: int) -> None:
        self.model = model
        self._known: dict[tuple[Ranks, int], RankWeights] = {}

        def sums(tensors: Iterable[Tensor]) -> Sizes:
            made: Counter[Split] = Counter()
            for tensor in tensors:
                made[tensor.split] += scheme.tensor_size(tensor, itemsize)
            return made

        self.layers = [sums(t for t in k.tensors if t.role != "experts") for k in model.layers]
        self.experts = [sums(t for t in k.tensors if t.role == "experts") for k in model.layers]
        self.embedding = sums(t for t in model.embedding if t.split != "vocabulary")
        self.head = sums(t for t in (*model.head, *model.final_norm) if t.split != "vocabulary")
        self.encoder = sums(model.encoder.tensors) if model.encoder else {}
        self.embedding_rows = [_rows(t, itemsize) for t in model.embedding if _is_rows(t)]
        self.head_rows = [_rows(t, itemsize) for t in model.head if _is_rows(t)]

    def rank(self, ranks: Ranks, *, rotary_itemsize: int) -> RankWeights:
        """Weights of a rank, tied tensors once on a stage that has both."""
        model = self.model
        held = Counter(
            model.order[i] for i in stage_layers(len(model.order), ranks.pp, ranks.stage)
        )
        first, last = ranks.stage == 0, ranks.stage == ranks.pp - 1
        embedding = head = 0
        if first:
            embedding = self._share(self.embedding, ranks) + _padded(self.embedding_rows, ranks)
        elif last and model.tied:
            embedding = _padded(self.embedding_rows[:1], ranks)
        if last:
            head = self._share(self.head, ranks) + _padded(self.head_rows, ranks)
        return RankWeights(
            layers=sum(n * self._share(self.layers[kind], ranks) for kind, n in held.items()),
            experts=sum(n * self._share(self.experts[kind], ranks) for kind, n in held.items()),
            embedding=embedding,
            head=head,
            encoder=self._share(self.encoder, ranks) if first else 0,
            rotary=model.rotary_positions * model.rotary_dim * rotary_itemsize,
        )

    def _share(self, sizes: Sizes, ranks: Ranks) -> int:
        return sum(size // divisor(split, self.model, ranks) for split, size in sizes.items())


@lru_cache(maxsize=1024)
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


def _is_rows(tensor: Tensor) -> bool:
    return tensor.split == "vocabulary"


def _rows(tensor: Tensor, itemsize: int) -> tuple[int, int]:
    """Rows of a vocabulary's tensor, and bytes of one."""
    return tensor.rows, tensor.columns * tensor.count * (tensor.itemsize or itemsize)


def _padded(tables: Iterable[tuple[int, int]], ranks: Ranks) -> int:
    """A rank's share of vocabulary rows, padded where the engine pads."""
    multiple = math.lcm(VOCABULARY_MULTIPLE, ranks.tp) if ranks.pads else 1
    return sum(-(-rows // multiple) * multiple * each // ranks.tp for rows, each in tables)


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
