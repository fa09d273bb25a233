"""What DeepSpeed's ZeRO holds beside its shards: buckets, and modules fetched to compute.

Sources: deepspeed/runtime/zero (config.py, stage_1_and_2.py, stage3.py,
partitioned_param_coordinator.py).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from sizewright_server.estimation.offload import placement
from sizewright_server.estimation.parallel import ALWAYS
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.sharding import Buffers, WorkingSet
from sizewright_server.estimation.states import buffer_elements


class DeepSpeedWorkingSet(WorkingSet):
    """ZeRO: buckets at the configured size whatever the model's; stage 3 fetches modules."""

    @cached_property
    def buffers(self) -> Buffers:
        """The reduction buckets, where they are not stated from transformers' `auto` to 5e8.

        Stages 1 and 2 allocate their buckets whole, two with overlap_comm (stage_1_and_2.py,
        setup_buckets); stage 3 one, and a concatenation of it to reduce. Without
        contiguous_gradients one bucket of gradients at a time is flattened.
        """
        bounds = [self._buckets(bound) for bound in ("low", "value", "high")]
        return Buffers(bounds[1], bounds[1] - bounds[0], bounds[2] - bounds[1])

    def _buckets(self, bound: str) -> Column:
        width, given = self.states.widths.gradient, self.layout.zero_buffers
        stated = given.reduce_bucket_size
        size = buffer_elements("deepspeed_reduce_bucket", bound) if stated is None else stated
        whole = self.states.total(width)
        flattened = np.minimum(size * width, whole)
        overlap = given.overlap_comm
        if overlap is None:
            overlap = bound == "high" and stated is None
        second = size * width * (1 + int(overlap))
        third = size * width + flattened
        zero = self.layouts.zero
        made = np.where(zero == 3, third, second)
        if not given.contiguous_gradients:
            made = flattened
        return np.where(self.layouts.shard > 1, made, 0)

    def _elements(self, stated: int | None, name: str) -> int:
        return buffer_elements(name, "value") if stated is None else stated

    @property
    def _gathers(self) -> Column:
        """1 where parameters are fetched to compute: from other ranks, or from where they wait."""
        if placement(self.layout).weights:
            return self.layouts.gathers
        return np.asarray(self.layouts.zero == 3, dtype=np.int64)

    @cached_property
    def _ahead(self) -> Column:
        """Bytes fetched ahead, and of the largest module that computes."""
        width = self.states.widths.types.weight
        given = self.layout.zero_buffers.prefetch_bucket_size
        size = self._elements(given, "deepspeed_prefetch_bucket") * width
        ahead: Column = self._gathers * (size + self.states.largest_module())
        return ahead

    @cached_property
    def _live(self) -> Column:
        """Gathered at the turn from forward to backward: what is used again soon is not released.

        A module d parameters before the end is used again after 2 d of them.
        """
        width, given = self.states.widths.types.weight, self.layout.zero_buffers
        reuse = self._elements(given.max_reuse_distance, "deepspeed_reuse_distance")
        most = self._elements(given.max_live_parameters, "deepspeed_live_parameters")
        turn = min(reuse // 2, most) * width
        live: Column = self._gathers * np.minimum(self.states.gathered_total(), turn)
        return live

    def forward(self) -> Column:
        """Modules one at a time, and at the end those that the backward pass begins with."""
        made = self.none + self._ahead
        made[-1] = np.maximum(self._live, self._ahead)
        return made

    def backward(self) -> Column:
        """As forward, in the other order."""
        return self.forward()

    def after_backward(self) -> Column:
        """From stage 2 on gradients go to shards (stage 3's are there throughout)."""
        states, zero = self.states, self.layouts.zero
        shard = states.per_segment(states.widths.gradient, ALWAYS)
        split = self.layouts.shard > 1
        kept = np.where(zero == 3, 0, shard)
        left = kept - states.whole(states.gradient_width)
        return np.where((zero >= 2) & split, left, -self.tied_gradients())

    def persisted(self) -> Column:
        """Stage 3 never frees parameters of at most `param_persistence_threshold` elements."""
        given = self.layout.zero_buffers.param_persistence_threshold
        limit = self._elements(given, "deepspeed_persistence_threshold")
        return np.multiply(self._gathers, self.states.small_tensors(limit))

    def left_shard(self) -> Column:
        """Stage 2's shard; stage 3's are there throughout."""
        shard = self.states.per_segment(self.states.widths.gradient, ALWAYS)
        second = (self.layouts.zero == 2) & (self.layouts.shard > 1)
        return np.where(second, shard, 0)
