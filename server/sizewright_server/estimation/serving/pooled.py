"""Estimates of engines with a pool: vLLM and SGLang."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from sizewright_server.estimation.memory import ByteRange, Part, Phase
from sizewright_server.estimation.serving.run import ServingDevice
from sizewright_server.estimation.serving.sglang import Sglang
from sizewright_server.estimation.serving.stages import Setup, Stage
from sizewright_server.estimation.serving.texts import exact, part, remainder, total
from sizewright_server.estimation.serving.view import (
    LONGEST,
    MOST_SEQUENCES,
    CountRange,
    ServingView,
    largest,
)
from sizewright_server.estimation.serving.vllm import Vllm

BOUNDS = ("low_bytes", "best_bytes", "high_bytes")


class PoolEngine(Protocol):
    """What is the same for every engine with a pool."""

    setup: Setup
    device: ServingDevice
    longest: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the pipeline that differ, the first one first."""
        ...

    @property
    def forward_tokens(self) -> int:
        """Most tokens of one pass."""
        ...

    @property
    def graphs_in_budget(self) -> bool:
        """Whether graphs are taken off the pool."""
        ...

    @property
    def sharers(self) -> int:
        """Ranks that hold caches of different sequences."""
        ...

    @property
    def utilization(self) -> float:
        """The share of the GPU the engine takes."""
        ...

    def budget(self) -> ByteRange:
        """Bytes the engine may take."""
        ...

    def pool_bytes(self, stage: Stage) -> ByteRange:
        """Bytes of the pool on a stage."""
        ...

    def tokens_of(self, blocks: int) -> int:
        """Tokens of that many blocks."""
        ...

    def least_bytes(self, stage: Stage, cache_bytes: int) -> ByteRange:
        """The least a GPU must have beside its context."""
        ...


def engine_of(setup: Setup, device: ServingDevice) -> PoolEngine:
    """The engine's rules."""
    return Sglang(setup, device) if setup.run.engine == "sglang" else Vllm(setup, device)


def needed_blocks(engine: PoolEngine, stage: Stage, sequences: int, tokens: int) -> int:
    """Blocks for `sequences` of `tokens` each; a shared prefix is held once."""
    pool, run = stage.pool, engine.setup.run
    mine = -(-sequences // (engine.setup.layout.dp * engine.sharers))
    each = pool.sequence_blocks(tokens, engine.forward_tokens)
    paged = sum(n for cache, n in pool.groups if cache.kind in ("full", "latent"))
    prefix = min(run.shared_prefix_tokens, tokens) // pool.block_tokens * paged
    return prefix + mine * (each - prefix)


def needed_bytes(engine: PoolEngine, stage: Stage) -> int:
    """Cache bytes of what the run asks for."""
    run = engine.setup.run
    mine = -(-run.batch // (engine.setup.layout.dp * engine.sharers))
    return stage.pool.whole_bytes(needed_blocks(engine, stage, run.batch, run.tokens), mine)


def least(engine: PoolEngine) -> tuple[int, ByteRange]:
    """Which of the differing stages needs most, and the least a GPU must have there beside its
    context."""
    sizes = [engine.least_bytes(stage, needed_bytes(engine, stage)) for stage in engine.stages]
    worst = max(range(len(sizes)), key=lambda i: sizes[i].best_bytes)
    return worst, sizes[worst]


def weights_part(engine: PoolEngine, stage: Stage) -> Part:
    """The weights with what they are made of."""
    children = tuple(exact(name, size) for name, size in stage.weight_parts)
    run, layout, setup = engine.setup.run, engine.setup.layout, engine.setup
    numbers = f"{setup.model.parameters:,} parameters in {run.weight_type} over {layout.tp}"
    if layout.pp > 1:
        numbers += f" x {layout.pp} stages"
    return part("weights", stage.weights, numbers, children)


def cache_part(engine: PoolEngine, stage: Stage, size: ByteRange, blocks: int) -> Part:
    """The cache: blocks, and what one token takes."""
    run, pool, setup = engine.setup.run, stage.pool, engine.setup
    numbers = (
        f"{blocks:,} blocks x {pool.block_bytes:,} B ({pool.block_tokens} tokens of {run.kv_type})"
    )
    if pool.kinds == 1 and pool.groups[0][0].kind == "full":
        kept = pool.groups[0][0]
        heads = max(1, -(-kept.kv_heads // setup.attention_tp))
        layers = setup.layer_count(0)
        width = kept.key_dim + kept.value_dim
        numbers += f"; {layers} layers x {heads} heads x {width} a token"
    return part("kv-cache", size, numbers)


def phases(engine: PoolEngine) -> tuple[Phase, ...]:
    """Loading, the profiled or widest pass, and serving what is asked with the least memory."""
    index, size = least(engine)
    stage = engine.stages[index]
    start, weights = part("engine-start", stage.start), weights_part(engine, stage)
    moving = [
        part("activations", stage.activations, stage.activation_words),
        part("non-torch", stage.non_torch),
    ]
    cache, run = needed_bytes(engine, stage), engine.setup.run
    blocks = needed_blocks(engine, stage, run.batch, run.tokens)
    serving = [
        weights,
        cache_part(engine, stage, ByteRange(cache, cache, cache), blocks),
        *moving,
        part("cuda-graphs", stage.graphs),
    ]
    reserve = remainder(size, total(tuple(serving)))
    serving.append(part("utilization-reserve", reserve, f"share {engine.utilization:g}"))
    return (
        _phase("load", [start, weights]),
        _phase("profile", [start, weights, *moving]),
        _phase("serving", [start, *serving]),
    )


def _phase(name: str, parts: list[Part]) -> Phase:
    kept = tuple(each for each in parts if each.size.high_bytes)
    return Phase(name, total(kept), kept)


def view(engine: PoolEngine, version: str) -> ServingView:
    """The engine's view: its breakdown on the first rank, and the pool where the GPU is known."""
    first = engine.stages[0]
    index, size = least(engine)
    worst = engine.stages[index]
    needed = needed_bytes(engine, worst)
    known = engine.device.total.best_bytes > 0
    pool = engine.pool_bytes(first) if known else ByteRange(0, 0, 0)
    blocks = first.pool.blocks(pool.best_bytes)
    breakdown = [
        weights_part(engine, first),
        part("activations", first.activations, first.activation_words),
        part("non-torch", first.non_torch),
        part("cuda-graphs", first.graphs),
    ]
    if known:
        # Below nothing where the engine would not start, as its log says; a notice says so here.
        breakdown.append(cache_part(engine, first, pool, blocks))
    made = ServingView(
        engine=engine.setup.run.engine,
        engine_version=version,
        breakdown=tuple(breakdown),
        bytes_per_token=first.pool.block_bytes // first.pool.block_tokens,
        block_tokens=first.pool.block_tokens,
        block_bytes=first.pool.block_bytes,
        needed_cache=ByteRange(needed, needed, needed),
        least_gpu=worst.start + size,
    )
    return _with_pool(made, engine) if known else made


def _with_pool(made: ServingView, engine: PoolEngine) -> ServingView:
    """The view with what the pool holds: the fewest blocks over the stages."""
    pools = [(stage, engine.pool_bytes(stage)) for stage in engine.stages]
    blocks = [
        min(stage.pool.blocks(getattr(size, bound)) for stage, size in pools) for bound in BOUNDS
    ]
    first = engine.stages[0]
    use = first.start + engine.budget()
    if not engine.graphs_in_budget:
        use = use + first.graphs
    run = engine.setup.run
    return replace(
        made,
        engine_use=use,
        kv_blocks=CountRange(*blocks),
        kv_tokens=CountRange(*(engine.tokens_of(count) for count in blocks)),
        sequences=CountRange(
            *(
                _sequences(engine, count, run.tokens, first.pool.slots(getattr(pools[0][1], bound)))
                for count, bound in zip(blocks, BOUNDS, strict=True)
            )
        ),
        longest_sequence=CountRange(*(_longest(engine, count, run.batch) for count in blocks)),
    )


def _sequences(engine: PoolEngine, blocks: int, tokens: int, slots: int | None) -> int:
    """Most sequences of that length at once, on one replica: what blocks and states allow."""
    stage = engine.stages[0]
    one, two = (_replica_blocks(engine, stage, n, tokens) for n in (1, 2))
    if one > blocks:
        return 0
    mine = 1 + (blocks - one) // max(1, two - one)
    if slots is not None:
        mine = min(mine, slots)
    return min(mine * engine.sharers, MOST_SEQUENCES)


def _replica_blocks(engine: PoolEngine, stage: Stage, mine: int, tokens: int) -> int:
    """Blocks of `mine` sequences on one rank."""
    ranks = engine.setup.layout.dp * engine.sharers
    return needed_blocks(engine, stage, mine * ranks, tokens)


def _longest(engine: PoolEngine, blocks: int, sequences: int) -> int:
    """The longest sequence with that many at once."""
    stage = engine.stages[0]
    return largest(
        lambda tokens: needed_blocks(engine, stage, sequences, tokens) <= blocks, LONGEST
    )
