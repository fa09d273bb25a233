"""vLLM: a share of the GPU is its budget; what weights and a profiled pass leave is the pool.

Sources: vllm/v1/worker/gpu_worker.py (`determine_available_memory`), gpu_model_runner.py
(`profile_run`), v1/core/kv_cache_utils.py, and the logs named in `data/engines.json`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial

from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.serving.caches import PagedPool, pool_of
from sizewright_server.estimation.serving.forward import (
    encoder_bytes,
    expert_bytes,
    layer_bytes,
    sampler_bytes,
    tower_bytes,
)
from sizewright_server.estimation.serving.rules import Rules, rules_of
from sizewright_server.estimation.serving.run import ServingDevice
from sizewright_server.estimation.serving.stages import NOTHING, Setup, Stage
from sizewright_server.estimation.serving.vllm_batches import default_batches

BOUNDS = ("low_bytes", "best_bytes", "high_bytes")
#: The engine that became the default (V1), and what it needs to say so.
FIRST_V1 = (0, 8)
BLOCK_TOKENS = 16
#: Largest batch graphs are captured for.
LARGEST_CAPTURE = 512
#: Bytes a logit of the sampler that sorts, which devices without the Triton kernel's support keep;
#: and of the half-precision copy that fp32 models do without.
SORTING_BYTES, HALF_COPY_BYTES = 38, 2
#: Weights differ by this share from the shapes: padding, packing, buffers of kernels.
WEIGHT_DOUBT = {"quantised": (0.01, 0.04), "padded": (0.03, 0.02), "plain": (0.002, 0.01)}
#: Activations seen in logs lie this share around the arithmetic.
ACTIVATION_DOUBT = (0.12, 0.18)


class Vllm:
    """The rules of one version for one setup on one device."""

    def __init__(self, setup: Setup, device: ServingDevice) -> None:
        self.setup, self.device, run = setup, device, setup.run
        self.rules: Rules = rules_of("vllm", run.version)
        old = run.version is not None and run.version < FIRST_V1
        self.generation = run.generation or ("v0" if old else "v1")
        self.longest = run.max_model_len or setup.model.positions
        self.batches = default_batches(self.rules, run, device, self.generation, self.longest)

    @property
    def utilization(self) -> float:
        """The share of the GPU that is the budget."""
        return self.setup.run.utilization or self.rules.rule("utilization").value

    @property
    def graphs_in_budget(self) -> bool:
        """Whether captured graphs are taken off the pool."""
        stated = self.setup.run.graphs_in_budget
        return self.rules.rule("graphs-in-budget").on if stated is None else stated

    @property
    def forward_tokens(self) -> int:
        """Most tokens that are scheduled and not settled: of one pass, or of those in flight."""
        passes = int(self.rules.rule("passes-in-flight").value)
        if passes > 1:
            passes = max(passes, self.setup.layout.pp)
        return passes * self.batches.tokens

    def budget(self) -> ByteRange:
        """Bytes the engine may take of the device, beside what was in use when it started."""
        share, total = self.utilization, self.device.total
        return ByteRange(*(int(share * b) for b in _bounds(total)))

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
            lambda: (self.setup.weight_parts(index), self.pool(index)),
        )
        total = sum(size for _, size in parts)
        activations, words = self._activations(index)
        return Stage(
            weights=self._weight_range(total),
            activations=activations,
            non_torch=self._non_torch(),
            graphs=self._graphs(index),
            start=self._start(),
            pool=pool,
            weight_parts=tuple(parts),
            index=index,
            activation_words=words,
        )

    def _weight_range(self, total: int) -> ByteRange:
        scheme = self.setup.scheme
        kind = "quantised" if scheme.converts else "plain"
        if scheme.name == "mxfp4":
            kind = "padded"
        less, more = WEIGHT_DOUBT[kind]
        return ByteRange(int(total * (1 - less)), total, int(total * (1 + more)))

    def _activations(self, index: int) -> tuple[ByteRange, str]:
        """The profile run: the widest layer, or the sampler over every sequence, on this stage."""
        setup, tokens = self.setup, self.batches.tokens
        model, size, layout = setup.model, setup.itemsize, setup.layout
        stream = tokens * model.hidden * size
        passed = 2 * stream if layout.pp > 1 else 0
        fixed = int(self.rules.rule("library-workspace").size().best_bytes)
        experts = expert_bytes(model, setup.scheme, tokens, size, layout.tp * layout.ep)
        images = 0 if setup.run.skip_encoder else encoder_bytes(model, tokens, size)
        buffers = self.rules.rule("hidden-buffers")
        least, layer, widest = (
            layer_bytes(model, tokens, size, layout.tp, count)
            for count in (buffers.low, buffers.value, buffers.high)
        )
        moments = [(layer + experts, f"a layer over {tokens:,} tokens {layer:,} B")]
        if index == layout.pp - 1:
            sampled, words = self._sampler(size)
            moments.append((sampled + stream + experts, f"{words} + stream {stream:,} B"))
        if index == 0 and not setup.run.skip_encoder:
            tower = tower_bytes(model, size)
            moments.append((tower, f"the vision tower {tower:,} B"))
        most, words = max(moments)
        states = self._states_apart(index)
        beside = images + passed + fixed + states
        best = most + beside
        # What stands beside the feed-forward is known by its bounds; it counts where it is most.
        low = (least + experts if most == layer + experts else most) + beside
        high = max(most, widest + experts) + beside
        for name, extra in (
            ("experts", experts),
            ("images", images),
            ("stages", passed),
            ("states", states),
        ):
            words += f" + {name} {extra:,} B" if extra else ""
        less, more = ACTIVATION_DOUBT
        size_range = ByteRange(int(low * (1 - less)), best, int(high * (1 + more)))
        return size_range, f"{words} + workspace {fixed:,} B"

    def _states_apart(self, index: int) -> int:
        """V0 keeps recurrent states of every sequence beside the pool (MambaCacheManager)."""
        if self.generation != "v0":
            return 0
        form = self.setup.cache_format()
        each = sum(n * form.state_bytes(c) for c, n in self.setup.caches(index).items())
        return self.batches.sequences * each

    def _sampler(self, itemsize: int) -> tuple[int, str]:
        """Bytes of the dummy sampler run, and how they come about."""
        model = self.setup.model
        rows = min(self.batches.sequences, self.batches.tokens)
        per_logit = self.rules.rule("sampler-bytes-per-logit").value
        if self.device.vendor != "nvidia":
            per_logit = SORTING_BYTES
        if itemsize == 4:
            per_logit -= HALF_COPY_BYTES
        buffer = self.rules.rule("sampler-buffer-rows").value
        size = sampler_bytes(rows, model.vocab, per_logit, buffer) + rows * model.hidden * itemsize
        words = f"sampler {rows:,} sequences x {model.vocab:,} x {per_logit:g} B"
        if buffer:
            words += f" + {buffer:g} rows x {model.vocab:,} x 4 B"
        return size, words

    def _non_torch(self) -> ByteRange:
        layout = self.setup.layout
        if layout.tp > 1:
            kind = "linked" if self.device.linked else "unlinked"
            return self.rules.rule(f"non-torch-{kind}").size()
        name = "non-torch-pipeline" if layout.pp > 1 else "non-torch-one"
        return self.rules.rule(name).size()

    def _start(self) -> ByteRange:
        many = self.setup.layout.tp * self.setup.layout.pp > 1
        return self.rules.rule("start-used-many" if many else "start-used-one").size()

    def _graphs(self, index: int) -> ByteRange:
        if self.setup.run.eager:
            return NOTHING
        layers = self.setup.layer_count(index)
        share = captured_sizes(self.batches.sequences) / captured_sizes(LARGEST_CAPTURE)
        made = self.rules.rule("graph-base").size(share)
        made += self.rules.rule("graph-per-layer").size(layers * share)
        if self.setup.model.experts is not None:
            made += self.rules.rule("graph-experts").size(share)
        return made

    def pool(self, index: int) -> PagedPool:
        """The pool's blocks on a stage."""
        rules, run = self.rules, self.setup.run
        caches = self.setup.caches(index)
        if self.generation == "v0":
            caches = {cache: n for cache, n in caches.items() if cache.kind != "state"}
        hybrid = self.generation == "v1" and run.hybrid_cache and rules.rule("hybrid-groups").on
        made = pool_of(
            caches,
            self.setup.cache_format(int(rules.rule("latent-multiple").value)),
            run.block_tokens if run.block_tokens and run.block_tokens <= 256 else BLOCK_TOKENS,
            hybrid=hybrid,
            # Each proposed token has a state of its own (`num_speculative_blocks` of MambaSpec).
            state_pages=int(rules.rule("state-pages").value) + run.draft_tokens,
            group_bound=rules.rule("group-bound").value,
        )
        # A block's tokens are spread over the ranks that share sequences.
        return replace(made, block_tokens=made.block_tokens * run.decode_context_parallel)

    def tokens_of(self, blocks: int) -> int:
        """The tokens the engine says its blocks hold."""
        pool = self.stages[0].pool
        groups = max(1, pool.kinds)
        if groups > 1 and self.rules.rule("tokens-by-concurrency").on:
            each = pool.sequence_blocks(self.longest, self.forward_tokens)
            return int(blocks / max(1, each) * self.longest) * self.sharers
        return blocks // groups * pool.block_tokens * self.sharers

    @property
    def sharers(self) -> int:
        """Ranks that hold caches of different sequences (data-parallel attention)."""
        return self.setup.layout.tp if self.setup.run.attention_data_parallel else 1

    def pool_bytes(self, stage: Stage) -> ByteRange:
        """What is left for the cache on a stage; below 0 the engine refuses to start."""
        taken, budget = stage.fixed(graphs=self.graphs_in_budget), self.budget()
        return ByteRange(
            budget.low_bytes - taken.high_bytes,
            budget.best_bytes - taken.best_bytes,
            budget.high_bytes - taken.low_bytes,
        )

    def least_bytes(self, stage: Stage, cache_bytes: int) -> ByteRange:
        """The least a GPU must have, beside its context, for a cache of that size.

        Its budget must hold weights, pass and cache; and budget, graphs and communicators the GPU.
        """
        held = stage.fixed(graphs=self.graphs_in_budget)
        outside = NOTHING if self.graphs_in_budget else stage.graphs
        made = []
        for bound, other in zip(BOUNDS, reversed(BOUNDS), strict=True):
            need = getattr(held, bound) + cache_bytes
            shared = int(need / self.utilization) - getattr(stage.start, other)
            made.append(max(need + getattr(outside, bound), shared))
        # What is in use at the start is taken off: its doubt may outweigh the rest's.
        low, best, high = made
        return ByteRange(min(low, best), best, max(best, high))


def captured_sizes(sequences: int) -> int:
    """Batch sizes graphs are captured for: 1, 2, 4, by 8 to 256 and by 16 to 512, no larger than
    twice the sequences of a batch (config/vllm.py, `_set_cudagraph_sizes`)."""
    largest = min(LARGEST_CAPTURE, 2 * sequences)
    small = sum(size <= largest for size in (1, 2, 4))
    return max(1, small + min(largest, 256) // 8 + max(0, largest - 256) // 16)


def _bounds(size: ByteRange) -> tuple[int, int, int]:
    return size.low_bytes, size.best_bytes, size.high_bytes
