"""SGLang: a fraction of what is free before loading holds weights and pool, with no profile run.

Sources: sglang/srt/model_executor/model_runner.py (`profile_max_num_token`), server_args.py, and
the logs named in `data/engines.json`.
"""

from __future__ import annotations

from functools import cached_property, partial

from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.serving.caches import PagedPool, split_pool
from sizewright_server.estimation.serving.devices import SIZES
from sizewright_server.estimation.serving.forward import expert_bytes, layer_bytes, tower_bytes
from sizewright_server.estimation.serving.rules import Rules, rules_of
from sizewright_server.estimation.serving.run import ServingDevice
from sizewright_server.estimation.serving.sglang_defaults import default_chunk, default_share
from sizewright_server.estimation.serving.stages import NOTHING, Setup, Stage

ACTIVATION_DOUBT = (0.3, 0.5)
#: The fraction is rounded to three digits: what is sure is so much less.
SHARE_ROUNDING = 0.0006
#: What 0.5.23 keeps where it sizes the pool after its graphs, and for each rank (memory_hook.py).
AFTER_GRAPHS_BYTES, RANK_BYTES = 1536 * 2**20, 128 * 2**20
#: How exactly the least size is found, and a size no GPU has.
STEP, UNBOUNDED = 4096, 2**50


class Sglang:
    """The rules of one version for one setup on one device."""

    graphs_in_budget = False
    generation = "v1"

    def __init__(self, setup: Setup, device: ServingDevice) -> None:
        self.setup, self.device = setup, device
        self.rules: Rules = rules_of("sglang", setup.run.version)
        self.longest = setup.run.max_model_len or setup.model.positions
        self.chunk = default_chunk(setup.run.version, device.sized_bytes)

    @property
    def forward_tokens(self) -> int:
        """Most tokens of one prefill chunk."""
        return self.setup.run.max_num_batched_tokens or self.chunk

    @property
    def sharers(self) -> int:
        """Ranks that hold caches of different sequences (data-parallel attention)."""
        return self.setup.layout.tp if self.setup.run.attention_data_parallel else 1

    @property
    def utilization(self) -> float:
        """mem_fraction_static on this device."""
        return self._share(self.device.total.best_bytes)

    def _share(self, total_bytes: int) -> float:
        """The fraction of a GPU of that size: stated, or the default."""
        stated = self.setup.run.utilization
        return default_share(self.setup, total_bytes) if stated is None else stated

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the pipeline that differ."""
        tables, setup = self.setup.tables, self.setup
        return tuple(
            tables.stage((self.device, setup.stage_key(i)), partial(self._stage, i))
            for i, _ in setup.distinct_stages
        )

    def _stage(self, index: int) -> Stage:
        parts, pool = self.setup.tables.shared(
            self.setup.stage_key(index),
            lambda: (self.setup.weight_parts(index), self._pool(index)),
        )
        extra = self.rules.rule("load-extra").size()
        total = sum(size for _, size in parts)
        more = 0.04 if self.setup.scheme.converts else 0.01
        weights = ByteRange(total, total, int(total * (1 + more))) + extra
        return Stage(
            weights=weights,
            activations=self._activations(),
            non_torch=NOTHING,
            graphs=NOTHING if self.setup.run.eager else self.rules.rule("graphs").size(),
            start=self._start(),
            pool=pool,
            weight_parts=(*parts, ("loading-overhead", extra.best_bytes)),
            index=index,
            activation_words=f"a layer over a chunk of {self.forward_tokens:,} tokens",
        )

    def _activations(self) -> ByteRange:
        setup, tokens = self.setup, self.forward_tokens
        buffers = self.rules.rule("hidden-buffers").value
        best = layer_bytes(setup.model, tokens, setup.itemsize, setup.layout.tp, buffers)
        ranks = setup.layout.tp * setup.layout.ep
        best += expert_bytes(setup.model, setup.scheme, tokens, setup.itemsize, ranks)
        best = max(best, tower_bytes(setup.model, setup.itemsize))
        less, more = ACTIVATION_DOUBT
        return ByteRange(int(best * (1 - less)), best, int(best * (1 + more)))

    def _start(self) -> ByteRange:
        if self.setup.layout.tp * self.setup.layout.pp == 1:
            return self.rules.rule("start-used-one").size()
        kind = "linked" if self.device.linked else "unlinked"
        return self.rules.rule(f"start-used-{kind}").size()

    def _pool(self, index: int) -> PagedPool:
        """One slot per token: pages of one token, and states in a pool of their own."""
        return split_pool(
            self.setup.caches(index),
            self.setup.cache_format(),
            self.setup.run.block_tokens or 1,
            self.rules.rule("window-ratio").value if self.setup.run.hybrid_cache else 1.0,
            self.rules.rule("state-ratio").value,
        )

    def budget(self) -> ByteRange:
        """The fraction of what is free before loading."""
        start, total = self.stages[0].start, self.device.total
        share = most = self.utilization
        if self.rules.is_newer and self.setup.run.utilization is None:
            most = max(share, self._share_after_graphs())
        return ByteRange(
            int(share * (total.low_bytes - start.high_bytes)),
            int(share * (total.best_bytes - start.best_bytes)),
            int(most * (total.high_bytes - start.low_bytes)),
        )

    def _share_after_graphs(self) -> float:
        """The fraction of later versions, which may size the pool after capturing graphs."""
        layout = self.setup.layout
        reserve = AFTER_GRAPHS_BYTES + layout.tp * layout.pp * RANK_BYTES
        return 1 - reserve / max(reserve, self.device.total.best_bytes)

    def pool_bytes(self, stage: Stage) -> ByteRange:
        """What weights leave of the fraction; activations live in the other part."""
        budget = self.budget()
        return ByteRange(
            budget.low_bytes - stage.weights.high_bytes,
            budget.best_bytes - stage.weights.best_bytes,
            budget.high_bytes - stage.weights.low_bytes,
        )

    def tokens_of(self, blocks: int) -> int:
        """The tokens of the pool."""
        return blocks * self.stages[0].pool.block_tokens * self.sharers

    def least_bytes(self, stage: Stage, cache_bytes: int) -> ByteRange:
        """The least a GPU must have, beside its context, for a cache of that size.

        The fraction must hold weights and cache; the rest the pass and the graphs.
        """
        made = []
        for bound in ("low_bytes", "best_bytes", "high_bytes"):
            static = getattr(stage.weights, bound) + cache_bytes
            moving = getattr(stage.activations, bound) + getattr(stage.graphs, bound)
            shared = self._least_for(static, getattr(stage.start, bound))
            made.append(max(static + moving, shared))
        # What is in use at the start is taken off: its doubt may outweigh the rest's.
        low, best, high = made
        return ByteRange(min(low, best), best, max(best, high))

    def _least_for(self, static: int, start: int) -> int:
        """The least free memory whose fraction holds `static`: the fraction follows the size."""
        stated = self.setup.run.utilization
        if stated is not None:
            return int(static / stated) + 1
        total = start + static
        for bound in (*SIZES["sglang"], UNBOUNDED):
            if total < bound:
                total = self._grown(total, bound, static, start)
            if total < bound:
                break
        return total - start

    def _grown(self, total: int, bound: int, static: int, start: int) -> int:
        """The least size that holds `static` under the defaults of `total`; `bound` if none below.

        A size that lacks so many bytes must be larger by at least as many.
        """
        while total < bound:
            share = default_share(self.setup, total, rounded=False) - SHARE_ROUNDING
            lacking = static - int(share * (total - start))
            if lacking <= 0:
                return total
            total += lacking + STEP
        return bound
