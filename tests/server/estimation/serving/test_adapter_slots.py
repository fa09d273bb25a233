"""Slots of LoRA adapters by hand, as vLLM's layers allocate them."""

from __future__ import annotations

from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.serving.adapter_slots import slot_elements
from sizewright_server.estimation.serving.reading import read_served_model
from sizewright_server.estimation.workload import Layout

LLAMA = read_served_model(find_preset("meta-llama/Meta-Llama-3-70B").config, "model")
MIXTRAL = read_served_model(find_preset("mistralai/Mixtral-8x7B-v0.1").config, "model")


def test_one_side_of_a_slot_is_whole_on_every_rank() -> None:
    # A layer at 8 ranks: q, k, v and o, gate and up, down.
    q, k, o = 8192 + 1024, 8192 + 128, 1024 + 8192
    gate, down = 8192 + 3584, 3584 + 8192
    tables = 2 * (128_256 + 8192)

    made = slot_elements(LLAMA, "vllm", Layout(tp=8), 0)

    assert made == 80 * (q + 2 * k + o + 2 * gate + down) + tables


def test_each_end_of_a_pipeline_has_one_table() -> None:
    first, last = (slot_elements(LLAMA, "vllm", Layout(tp=8, pp=2), stage) for stage in (0, 1))

    assert first == last
    assert 2 * first == slot_elements(LLAMA, "vllm", Layout(tp=8), 0)


def test_every_expert_has_a_slot_of_its_own() -> None:
    attention = (4096 + 4096) + 2 * (4096 + 1024) + (4096 + 4096)
    expert = 2 * (4096 + 14_336) + (14_336 + 4096)

    assert slot_elements(MIXTRAL, "sglang", Layout(), 0) == 32 * (attention + 8 * expert)
