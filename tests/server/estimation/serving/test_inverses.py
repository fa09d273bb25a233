"""What a pool holds and what it needs are each other's inverse, for every engine and model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.serving.caches import CacheFormat, PagedPool, split_pool
from sizewright_server.estimation.serving.model import LayerCache
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.serving.run import ServingDevice, ServingRun, ServingWorkload
from sizewright_server.estimation.serving.view import ServingView
from sizewright_server.estimation.workload import Layout, ModelSource

GIB = 2**30
MODELS = (
    "meta-llama/Llama-3.1-8B",
    "google/gemma-3-12b-it",
    "Qwen/Qwen3.5-27B",
    "deepseek-ai/DeepSeek-V2-Lite",
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "openai/gpt-oss-20b",
)


def device(total_bytes: int) -> ServingDevice:
    same = ByteRange(total_bytes, total_bytes, total_bytes)
    return ServingDevice("a GPU", same, linked=True, capability=9.0)


def view(preset: str, total_bytes: int = 0, **run: object) -> ServingView:
    usual = ServingRun("vllm", "bf16", "bf16", "bf16", version=(0, 19, 0))
    workload = ServingWorkload(
        ModelSource(find_preset(preset).config),
        replace(usual, **run),  # type: ignore[arg-type]
    )
    estimate = PreparedServing(workload).estimate(
        Layout(), 1, device_overhead("nvidia", "9.0"), device=device(total_bytes)
    )
    assert estimate.serving is not None
    return estimate.serving


@settings(max_examples=60, deadline=None)
@given(
    preset=st.sampled_from(MODELS),
    engine=st.sampled_from(["vllm", "sglang"]),
    batch=st.integers(1, 300),
    length=st.integers(1, 30_000),
)
def test_the_least_gpu_holds_just_what_is_asked(
    preset: str, engine: str, batch: int, length: int
) -> None:
    asked: dict[str, Any] = {
        "engine": engine,
        "version": None,
        "batch": batch,
        "input_tokens": length,
    }
    least = view(preset, **asked).least_gpu.best_bytes

    enough = view(preset, least + 2**20, **asked)

    assert enough.sequences is not None
    assert enough.longest_sequence is not None
    assert enough.sequences.best >= batch
    assert enough.longest_sequence.best >= length


@settings(max_examples=40, deadline=None)
@given(preset=st.sampled_from(MODELS), gib=st.integers(70, 300), length=st.integers(16, 20_000))
def test_one_sequence_more_than_fit_needs_more_than_the_pool(
    preset: str, gib: int, length: int
) -> None:
    held = view(preset, gib * GIB, input_tokens=length)
    assert held.sequences is not None
    assert held.kv_blocks is not None

    most = view(preset, gib * GIB, input_tokens=length, batch=held.sequences.best)
    more = view(preset, gib * GIB, input_tokens=length, batch=held.sequences.best + 1)

    pool = held.kv_blocks.best * held.block_bytes
    assert most.needed_cache.best_bytes <= pool < more.needed_cache.best_bytes


@settings(max_examples=100, deadline=None)
@given(
    blocks=st.integers(0, 10**6),
    sequences=st.integers(0, 10**4),
    share=st.floats(0.05, 0.95),
    states=st.integers(1, 10**8),
)
def test_a_pool_with_states_apart_holds_what_it_was_made_for(
    blocks: int, sequences: int, share: float, states: int
) -> None:
    kept = LayerCache("full", 8, 128, 128)
    pool = PagedPool(1, 4096, ((kept, 1),), state_share=share, state_bytes=states)

    whole = pool.whole_bytes(blocks, sequences) + 4096 + states

    assert pool.blocks(whole) >= blocks
    assert (pool.slots(whole) or 0) >= sequences


@settings(max_examples=40, deadline=None)
@given(preset=st.sampled_from(MODELS), low=st.floats(0.5, 0.9), more=st.floats(0, 0.09))
def test_a_larger_share_of_the_gpu_never_holds_less(preset: str, low: float, more: float) -> None:
    less = view(preset, 96 * GIB, utilization=low).kv_blocks
    greater = view(preset, 96 * GIB, utilization=low + more).kv_blocks

    assert less is not None
    assert greater is not None
    assert less.best <= greater.best


def test_states_of_sglang_have_nine_parts_of_nineteen() -> None:
    caches = {
        LayerCache("full", 4, 256, 256): 16,
        LayerCache("state", conv_elements=30_720, state_elements=786_432, state_itemsize=4): 48,
    }

    pool = split_pool(caches, CacheFormat("bf16"), 1, 0.8, 0.9)

    assert pool.state_share == pytest.approx(9 / 19)
    assert pool.state_bytes == 48 * (30_720 * 2 + 786_432 * 4)
    assert pool.block_bytes == 16 * 4 * 512 * 2


def test_data_parallel_attention_holds_other_sequences_on_each_rank() -> None:
    workload = ServingWorkload(
        ModelSource(find_preset("deepseek-ai/DeepSeek-V3").config),
        ServingRun("sglang", "fp8-block", "bf16", "bf16", version=(0, 4, 6)),
    )
    alone = PreparedServing(workload)
    apart = PreparedServing(
        replace(workload, run=replace(workload.run, attention_data_parallel=True))
    )
    h200 = device(140 * GIB)
    views = [
        prepared.estimate(Layout(tp=8), 8, device_overhead("nvidia", "9.0"), device=h200).serving
        for prepared in (alone, apart)
    ]

    assert views[0] is not None
    assert views[1] is not None
    assert views[0].kv_tokens is not None
    assert views[1].kv_tokens is not None
    # Attention's weights stand on every rank, so each holds less; eight ranks hold far more.
    assert 4 < views[1].kv_tokens.best / views[0].kv_tokens.best < 8


@settings(max_examples=60, deadline=None)
@given(
    preset=st.sampled_from(("openai-community/gpt2", *MODELS)),
    engine_and_version=st.sampled_from(
        [
            *(("vllm", v) for v in [(0, 6, 3), (0, 8, 1), (0, 19), (0, 33), (0, 40)]),
            *(("sglang", v) for v in [(0, 4, 4), (0, 5, 2), (0, 5, 9), (0, 5, 23)]),
            *(("transformers", v) for v in [(4, 40), (4, 46), (4, 51, 3), (5, 23), (6, 0)]),
        ]
    ),
    batch=st.sampled_from([1, 64]),
    length=st.sampled_from([1, 4096]),
)
def test_bounds_are_in_order_for_every_engine_and_version(
    preset: str, engine_and_version: tuple[str, tuple[int, ...]], batch: int, length: int
) -> None:
    engine, version = engine_and_version
    seen = view(preset, 80 * GIB, engine=engine, version=version, batch=batch, input_tokens=length)

    sizes = [seen.least_gpu, *(part.size for part in seen.breakdown)]
    assert all(size.low_bytes <= size.best_bytes <= size.high_bytes for size in sizes)
    # A pool may be below nothing, as engines say of one that they do not start with.
    assert all(p.size.low_bytes >= 0 for p in seen.breakdown if p.name != "kv-cache")
    counts = [c for c in (seen.kv_tokens, seen.sequences, seen.longest_sequence) if c is not None]
    assert all(0 <= count.low <= count.best <= count.high for count in counts)
