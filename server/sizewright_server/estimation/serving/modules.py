"""Estimates of transformers and plain PyTorch where the tape does not lower the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sizewright_server.estimation.memory import ByteRange, Part, Phase
from sizewright_server.estimation.reserved import reserved_shares
from sizewright_server.estimation.serving.huggingface import HuggingFace, Moment
from sizewright_server.estimation.serving.run import ServingDevice
from sizewright_server.estimation.serving.stages import Setup
from sizewright_server.estimation.serving.texts import exact, part, remainder, total
from sizewright_server.estimation.serving.view import (
    LONGEST,
    MOST_SEQUENCES,
    CountRange,
    ServingView,
)

BOUNDS = ("low_bytes", "best_bytes", "high_bytes")
#: Weights lie this share around their shapes; a version newer than the known ones doubles it.
WEIGHT_DOUBT = {"plain": (0.002, 0.004), "quantised": (0.01, 0.03)}
#: Bytes of small tensors nobody lists: position ids, rotary tables, masks, generation state.
SMALL = ByteRange(0, 4 * 2**20, 48 * 2**20)


def stage_parts(engine: HuggingFace, stage: int, moment: Moment) -> tuple[Part, ...]:
    """The live parts of a moment on one GPU."""
    parts = engine.weights(stage)
    held = sum(n for _, n in parts)
    children = tuple(exact(name, n) for name, n in parts)
    words = f"{engine.model.parameters:,} parameters in {engine.run.weight_type}"
    made = [part("weights", _weight_range(engine, held), words, children)]
    for name, size in moment.parts:
        if name == "kv-cache":
            made.append(exact(name, size.best_bytes, _cache_words(engine)))
        elif name == "activations" and moment.phase == "prefill":
            made.append(part(name, size, _prompt_words(engine), words="module-activations"))
        elif name == "activations":
            made.append(part(name, size, words="module-activations"))
        else:
            made.append(part(name, size))
    return tuple(each for each in made if each.size.high_bytes)


def _prompt_words(engine: HuggingFace) -> str:
    """The prompt's activations, and where two sources disagree on how many show."""
    tokens, run = engine.run.input_tokens, engine.run
    shown = engine.rules.rule("prompt-activations")
    words = f"{run.batch} x {tokens:,} tokens: {engine.activations(tokens):,} B"
    if shown.low == shown.high:
        return words
    return f"{words}, of which {shown.low:.0%} to {shown.high:.0%} is seen: {shown.source}"


def _cache_words(engine: HuggingFace) -> str:
    run = engine.run
    return (
        f"{run.batch} sequences of up to {run.cache_tokens or run.tokens:,} tokens in {run.kv_type}"
    )


def stage_phases(engine: HuggingFace, stage: int) -> tuple[Phase, ...]:
    """Prefill and decode of a stage."""
    made = []
    for moment in engine.moments(stage):
        parts = stage_parts(engine, stage, moment)
        made.append(Phase(moment.phase, total(parts), parts))
    return tuple(made)


def allocated(engine: HuggingFace, stage: int) -> ByteRange:
    """The allocator's peak on one GPU of the pipeline.

    The low bound leaves the prefill's activations out: prompts may be run in chunks.
    """
    held = _weight_range(engine, engine.weight_bytes(stage))
    sizes = [held + moment.total for moment in engine.moments(stage)]
    return ByteRange(
        min(size.low_bytes for size in sizes),
        max(size.best_bytes for size in sizes) + SMALL.best_bytes,
        max(size.high_bytes for size in sizes) + SMALL.high_bytes,
    )


def _weight_range(engine: HuggingFace, size: int) -> ByteRange:
    kind = "quantised" if engine.setup.scheme.converts else "plain"
    times = 2 if engine.rules.is_newer else 1
    less, more = (times * share for share in WEIGHT_DOUBT[kind])
    return ByteRange(int(size * (1 - less)), size, int(size * (1 + more)))


def reserved(engine: HuggingFace, stage: int) -> ByteRange:
    """What the caching allocator holds: more than is live by a share of what comes and goes."""
    live = allocated(engine, stage)
    held = engine.weight_bytes(stage)
    if engine.ahead:
        held += engine.cache_bytes(stage, engine.ahead)
    _, usual, most = reserved_shares()["inference"]
    moving = max(0, live.best_bytes - held)
    return ByteRange(
        live.low_bytes,
        live.best_bytes + int(usual * moving),
        live.high_bytes + int(most * moving),
    )


def beside_workspaces(engine: HuggingFace, stage: int) -> ByteRange:
    """`reserved` without the library workspaces, which a device's own overhead counts."""
    return remainder(reserved(engine, stage), engine.workspace)


def all_gpus(engine: HuggingFace) -> ByteRange:
    """Peaks of every GPU of the pipeline added up, as benchmarks over a device map report."""
    made = ByteRange(0, 0, 0)
    for stage, count in engine.setup.distinct_stages:
        one = allocated(engine, stage)
        made = made + ByteRange(*(count * getattr(one, bound) for bound in BOUNDS))
    return made


def worst_stage(engine: HuggingFace) -> int:
    """The fullest GPU."""
    stages = (stage for stage, _ in engine.setup.distinct_stages)
    return max(stages, key=lambda i: allocated(engine, i).best_bytes)


def view(setup: Setup, device: ServingDevice, version: str, context: ByteRange) -> ServingView:
    """Breakdown and, on a known GPU, the largest batch and length."""
    engine = HuggingFace(setup, device)
    stage = worst_stage(engine)
    fullest = max(stage_phases(engine, stage), key=lambda phase: phase.total.best_bytes)
    cache = engine.cache_bytes(stage, setup.run.tokens)
    per_token = engine.cache_bytes(stage, 2) - engine.cache_bytes(stage, 1)
    needed = ByteRange(cache, cache, cache)
    made = ServingView(
        engine=setup.run.engine,
        engine_version=version,
        breakdown=fullest.parts,
        bytes_per_token=per_token // max(1, setup.run.batch),
        block_tokens=1,
        block_bytes=max(1, per_token // max(1, setup.run.batch)),
        needed_cache=needed,
        least_gpu=beside_workspaces(engine, stage) + context,
        allocated=allocated(engine, stage),
        all_gpus=all_gpus(engine),
    )
    return _with_limits(made, setup, device, context, stage) if device.total.best_bytes else made


def _with_limits(
    made: ServingView, setup: Setup, device: ServingDevice, context: ByteRange, stage: int
) -> ServingView:
    """Largest batch at the asked length, and largest prompt at the asked batch, by each bound.

    The careful bound of a count uses the high estimate, and the bold one the low.
    """

    run = setup.run
    top = device.total.best_bytes - context.best_bytes

    def size(batch: int, prompt: int) -> ByteRange:
        return beside_workspaces(HuggingFace(setup, device, (batch, prompt)), stage)

    batches = _largest_each(lambda n: size(n, run.input_tokens), top, MOST_SEQUENCES)
    lengths = _largest_each(lambda n: size(run.batch, n), top, LONGEST)
    longest = [n + run.new_tokens if n else 0 for n in lengths]
    return replace(
        made,
        engine_use=made.least_gpu,
        sequences=CountRange(*batches),
        longest_sequence=CountRange(*longest),
    )


def _largest_each(size: Callable[[int], ByteRange], top: int, most: int) -> tuple[int, int, int]:
    """The largest number that fits below `top` by the high, the best and the low estimate."""
    known: dict[int, ByteRange] = {}

    def at(n: int) -> ByteRange:
        if n not in known:
            known[n] = size(n)
        return known[n]

    return (
        largest_below(lambda n: at(n).high_bytes, top, most),
        largest_below(lambda n: at(n).best_bytes, top, most),
        largest_below(lambda n: at(n).low_bytes, top, most),
    )


#: A number near 1 whose size says how fast sizes grow.
NEAR = 64


def largest_below(size: Callable[[int], int], top: int, most: int) -> int:
    """The largest number whose size is at most `top`: by lines between a fit and a misfit.

    Sizes grow with the number, in lines with few kinks, so a line through the bracket's ends lands
    close; every third step halves the bracket, whatever the kinks.
    """
    if size(1) > top:
        return 0
    low, step = 1, 0
    high = 2 + (top - size(1)) * (NEAR - 1) // max(1, size(NEAR) - size(1))
    while high < most and size(high) <= top:
        low, high = high, 2 * high
    if high >= most:
        if size(most) <= top:
            return most
        high = most
    while high - low > 1:
        step += 1
        rise = size(high) - size(low)
        guess = low + (top - size(low)) * (high - low) // max(1, rise)
        if step % 3 == 0:
            guess = (low + high) // 2
        guess = min(max(guess, low + 1), high - 1)
        if size(guess) <= top:
            low = guess
            guess = min(low + 1, high)
            if guess < high and size(guess) > top:
                high = guess
        else:
            high = guess
    return low
