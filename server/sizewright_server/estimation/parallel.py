"""The layouts of a group as columns, and how far each state of a model is split under them.

`stage` says from which ZeRO stage on a state is split over the sharding ranks: 0 never, 1 to 3 as
the stage, ALWAYS whatever the stage (the shard a reduction leaves).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sizewright_server.estimation.layout import Layout
from sizewright_server.estimation.profile import Column

ALWAYS = -1


@dataclass(frozen=True, slots=True)
class ParallelColumns:
    """Sizes of every parallel dimension, one entry per layout.

    `shard` is the number of ranks over which sharded states are split: data- and context-parallel
    ranks, or fewer under hybrid sharding. `replicas` are the ranks that reduce gradients with each
    other, sharded or not. `expert_split` is the stated size of `expert_tp`, 0 where there is none.
    """

    dp: Column
    tp: Column
    pp: Column
    cp: Column
    ep: Column
    zero: Column
    keep: Column
    shard: Column
    virtual: Column
    expert_split: Column
    #: By stage, and whether of experts: every table of tensors asks for the same few.
    _ways: dict[tuple[int, bool], Column] = field(default_factory=dict, init=False, compare=False)

    @classmethod
    def of(cls, layouts: Sequence[Layout]) -> ParallelColumns:
        """The columns of some layouts."""
        rows = [
            (
                one.dp,
                one.tp,
                one.pp,
                one.cp,
                one.ep,
                one.zero,
                int(one.keep_gathered),
                one.shard_ranks,
                one.virtual_stages,
                one.megatron.expert_tensor_parallel_size,
            )
            for one in layouts
        ]
        return cls(*np.array(rows, dtype=np.int64).T)

    @property
    def replicas(self) -> Column:
        """Ranks that hold the same parameters, or shards of them."""
        return self.dp * self.cp

    @property
    def expert_tp(self) -> Column:
        """Ranks over which one expert is split: Megatron-LM's expert-tensor-parallel-size.

        Not stated it is as of other layers, unless the experts take all ranks.
        """
        usual = np.where(self.ep > self.dp * self.cp, 1, self.tp)
        return np.where(self.expert_split > 0, self.expert_split, usual)

    def ways(self, stage: int, *, expert: bool = False) -> Column:
        """Over how many ranks a state is split; experts' states over those that share experts."""
        made = self._ways.get((stage, expert))
        if made is None:
            made = self._ways[stage, expert] = self._split(stage, expert)
        return made

    def _split(self, stage: int, expert: bool) -> Column:
        shard = self.shard
        if expert:
            shard = np.maximum(shard * self.tp // (self.ep * self.expert_tp), 1)
        if stage == ALWAYS:
            return shard
        return np.where((self.zero >= stage) & (stage > 0), shard, 1)

    @property
    def gathers(self) -> Column:
        """1 where parameters are sharded and must be gathered to compute, else 0."""
        gathered: Column = ((self.zero == 3) & (self.shard > 1)).astype(np.int64)
        return gathered
