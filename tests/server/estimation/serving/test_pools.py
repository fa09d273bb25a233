"""Pools of blocks against what vLLM logged for models with several kinds of layers."""

from __future__ import annotations

from collections import Counter

import pytest

from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.serving.caches import CacheFormat, PagedPool, pool_of
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.serving.reading import read_served_model
from sizewright_server.estimation.serving.run import ServingRun, ServingWorkload
from sizewright_server.estimation.workload import Layout, ModelSource

GIB = 2**30


def pool(preset: str, dtype: str, tp: int = 1, *, hybrid: bool = True) -> PagedPool:
    model = read_served_model(find_preset(preset).config, "model")
    form = CacheFormat(dtype, 2, tp)
    return pool_of(Counter(model.caches), form, 16, hybrid=hybrid, state_pages=2, group_bound=1.5)


@pytest.mark.parametrize(
    ("preset", "tp", "gib", "blocks", "groups"),
    [
        ("google/gemma-3-27b-it", 1, 19.53, 15_997, 7),
        ("google/gemma-2-9b", 1, 54.12, 21_110, 2),
        ("openai/gpt-oss-20b", 2, 59.32, 323_972, 2),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 4, 16.75, 91_495, 4),
        ("deepseek-ai/DeepSeek-V2-Lite", 1, 41.32, 89_148, 1),
    ],
)
def test_blocks_are_those_of_the_log(
    preset: str, tp: int, gib: float, blocks: int, groups: int
) -> None:
    made = pool(preset, "bf16", tp)

    # The log rounds the pool to 0.01 GiB.
    assert made.blocks(int(gib * GIB)) == pytest.approx(blocks, rel=0.005 / gib)
    assert made.kinds == groups


@pytest.mark.parametrize(
    ("dtype", "tp", "gib", "longest", "tokens", "block"),
    [("fp8", 2, 4.99, 131_072, 302_921, 1568), ("bf16", 1, 19.54, 262_144, 313_650, 784)],
)
def test_pages_of_attention_grow_to_the_size_of_a_state(
    dtype: str, tp: int, gib: float, longest: int, tokens: int, block: int
) -> None:
    made = pool("Qwen/Qwen3.5-27B", dtype, tp)

    held = made.blocks(int(gib * GIB)) / made.sequence_blocks(longest, 8192) * longest
    assert made.block_tokens == block
    assert int(held) == tokens


def test_a_latent_is_not_divided_by_tensor_parallelism() -> None:
    assert pool("deepseek-ai/DeepSeek-V3", "bf16", 8) == pool("deepseek-ai/DeepSeek-V3", "bf16", 1)


def test_fewer_heads_than_ranks_leave_one_head_on_each() -> None:
    eight = pool("meta-llama/Meta-Llama-3-8B", "bf16", 8)

    assert pool("meta-llama/Meta-Llama-3-8B", "bf16", 32).block_bytes == eight.block_bytes
    assert eight.block_bytes == 16 * 32 * 2 * 128 * 2


#: What vLLM 0.32's own planner (get_kv_cache_configs) says of these layers, run on its CPU build
#: with passes of 8,192 tokens: blocks of 16 tokens, and concurrency x longest sequence.
@pytest.mark.parametrize(
    ("preset", "gib", "longest", "blocks", "tokens"),
    [
        ("meta-llama/Llama-3.1-8B", 40, 8192, 20_480, 327_680),
        ("google/gemma-3-27b-it", 19.53, 8192, 15_998, 36_505),
        ("openai/gpt-oss-20b", 40, 8192, 109_226, 872_955),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 40, 32_768, 54_613, 349_523),
    ],
)
def test_pools_are_those_of_the_engines_own_planner(
    preset: str, gib: float, longest: int, blocks: int, tokens: int
) -> None:
    made = pool(preset, "bf16")

    assert made.blocks(int(gib * GIB)) == blocks
    assert int(blocks / made.sequence_blocks(longest, 8192) * longest) == tokens


@pytest.mark.parametrize(
    ("preset", "tp", "ranks", "bytes_per_token"),
    [
        # 61 layers x 1152 B of latent, over four ranks; 80 layers x one head of 128 keys and 128
        # values in bf16, which two ranks would hold twice.
        ("deepseek-ai/DeepSeek-V3", 8, 4, 61 * 1152 // 4),
        ("meta-llama/Meta-Llama-3-70B", 16, 2, 80 * 512 // 2),
    ],
)
def test_ranks_that_share_sequences_hold_a_part_of_each(
    preset: str, tp: int, ranks: int, bytes_per_token: int
) -> None:
    run = ServingRun(
        "vllm", "bf16", "bf16", "bf16", batch=4, input_tokens=4096, decode_context_parallel=ranks
    )
    workload = ServingWorkload(ModelSource(find_preset(preset).config), run)
    prepared = PreparedServing(workload)

    seen = prepared.estimate(Layout(tp=tp), tp, device_overhead("nvidia", "9.0")).serving

    assert seen is not None
    assert seen.bytes_per_token == bytes_per_token
    assert seen.needed_cache.best_bytes == 4 * 4096 * bytes_per_token
    assert all(tp % ranks == 0 for tp in prepared.legal_tp)


@pytest.mark.parametrize(
    ("preset", "tp", "text"),
    [
        ("meta-llama/Meta-Llama-3-70B", 8, "cannot share 8 key/value heads"),
        ("google/gemma-3-27b-it", 16, "windows"),
    ],
)
def test_ranks_without_copies_of_heads_cannot_share_sequences(
    preset: str, tp: int, text: str
) -> None:
    run = ServingRun(
        "vllm", "bf16", "bf16", "bf16", decode_context_parallel=2, layout=Layout(tp=tp)
    )
    with pytest.raises(UnsupportedWorkload, match=text):
        PreparedServing(ServingWorkload(ModelSource(find_preset(preset).config), run))


def test_without_the_hybrid_manager_every_layer_keeps_every_token() -> None:
    whole = pool("google/gemma-3-27b-it", "bf16", hybrid=False)

    assert whole.block_bytes == 16 * 62 * 16 * 2 * 128 * 2
    assert whole.sequence_blocks(32_768, 8192) == 2048


def test_a_window_takes_no_more_blocks_however_long_the_sequence() -> None:
    made = pool("google/gemma-3-27b-it", "bf16")

    grown = made.sequence_blocks(131_072, 8192) - made.sequence_blocks(65_536, 8192)
    assert grown == 65_536 // 16
